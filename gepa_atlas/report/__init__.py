"""What a person or a program reads after a run: optimized_prompts.json, traces.jsonl, the terminal view, the verdict in a sentence."""
