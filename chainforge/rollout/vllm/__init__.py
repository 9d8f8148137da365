"""The engine `vllm`: completions of stock vLLM servers, over HTTP."""
