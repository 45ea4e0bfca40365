# SPDX-License-Identifier: Apache-2.0
"""The quickstart's sample, retrieved and converted, with a checkpoint of a tiny network that can be asked."""
from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import retrieve
from examples.quickstart import toy_wordnet
from src.config import KNOWLEDGE_BASES, SQUAD, BertConfig, DataFolder, KTNetConfig, MemoryConfig, WindowConfig
from src.conversion import Conversion
from src.data_convert import convert
from src.knowledge.concepts import padded_table, read_concept_vectors
from src.reader.tokenization import basic_tokens
from testing.small_checkpoint import make_checkpoint

SAMPLE = Path(__file__).parents[1] / "examples" / "quickstart"
WINDOWS = WindowConfig(max_seq_len=48, doc_stride=16, max_query_length=20)      # several windows a passage


def make_vocabulary(root: Path) -> Path:
    """Two words of three whole, the others in letters."""
    text = "".join(path.read_text("utf-8") for path in sorted((root / "SQuAD").glob("*.json")))
    words = sorted(set(basic_tokens(text, lower_case=False)))
    letters = sorted(set("".join(words)))
    whole = [word for number, word in enumerate(words) if number % 3 and len(word) > 1]
    path = root / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *whole]
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def make_sample(root: Path) -> DataFolder:
    """The data folder; ``root`` is made."""
    from src.weights.sizes import save_config

    root.mkdir(exist_ok=True)
    for name in ("SQuAD", "KB_embeddings", "raw"):
        shutil.copytree(SAMPLE / name, root / name)
    toy_wordnet.main([str(SAMPLE / "toy_wordnet.json"), str(root / "nltk" / "corpora" / "wordnet")])
    vocabulary = make_vocabulary(root)
    data = DataFolder(root)
    retrieve.main(["--data_url", str(root), "--dataset", "squad", "--vocab_path", str(vocabulary)])
    convert(Conversion(task=SQUAD, split="dev", data=data, json_path=data.dataset_json(SQUAD, "dev"),
                       target=data.mindrecord(SQUAD, "dev"), vocab_path=vocabulary, lower_case=False, windows=WINDOWS,
                       bases=KNOWLEDGE_BASES), num_workers=1)
    memories = tuple(MemoryConfig(base.name, *padded_table(read_concept_vectors(data.vectors(base))[1]).shape,
                                  base.max_concepts) for base in KNOWLEDGE_BASES)
    config = KTNetConfig(BertConfig(vocab_size=len(vocabulary.read_text("utf-8").splitlines()), hidden_size=32,
                                    num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
                                    max_position_embeddings=64), memories, WINDOWS.max_seq_len)
    make_checkpoint(root / "KTNET_squad-1_1.ckpt", config)
    save_config(root / "KTNET_squad-1_1.ckpt", config, {**dataclasses.asdict(WINDOWS), "vocab_path": str(vocabulary)})
    return data


def sample_flags(data: DataFolder, *more: object) -> list[str]:
    """The flags that name the folder and its checkpoint, and further ones."""
    return ["--data_url", str(data.root), "--load_checkpoint_path", str(data.root / "KTNET_squad-1_1.ckpt"),
            *map(str, more)]
