"""From training sets to better weights. torch, trl, peft and vllm are imported here only, on first use."""
