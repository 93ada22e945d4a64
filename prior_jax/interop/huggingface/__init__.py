"""BERT directories, tokenizers and safetensors files of Hugging Face."""
