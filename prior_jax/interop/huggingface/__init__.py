"""Reads and writes BERT directories, tokenizers and safetensors files of Hugging Face."""
