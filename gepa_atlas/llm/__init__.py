"""One door to language models: the embedded one, any OpenAI-compatible server, litellm, and what others register."""
