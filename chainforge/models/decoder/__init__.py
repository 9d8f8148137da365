"""The decoder of Llama and its like with fewer operations than transformers': same weights, same results."""
