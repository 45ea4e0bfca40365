# SPDX-License-Identifier: Apache-2.0
"""Your own knowledge base, all the way: map -> retrieval -> features -> training -> evaluation -> a question."""
from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
import data_convert  # noqa: E402
import export  # noqa: E402
import retrieve  # noqa: E402
import run_KTNET_squad  # noqa: E402
import run_KTNET_squad_eval  # noqa: E402
from src.config import SQUAD, DataFolder, load_knowledge_bases  # noqa: E402
from src.knowledge.concepts import read_concept_names, write_concept_vectors  # noqa: E402
from src.knowledge.own import map_path  # noqa: E402
from src.reader.examples import read_side_table  # noqa: E402
from src.reader.logits import Logits  # noqa: E402
from src.settings import PredictionSettings  # noqa: E402
from src.weights.checkpoint import write_checkpoint  # noqa: E402
from testing import small_data, small_training  # noqa: E402
from testing.small_raw import make_inputs, own_bases, tagged_passages  # noqa: E402
from tests.test_convert import lists, read_dense  # noqa: E402
from utils.util import InputError, read_json  # noqa: E402

OWN = ("water", "places", "terms")        # by word, by entity, by phrase with a pruned table
TERMS = {"name": "terms", "label": "terms", "key": "phrase", "max_concepts": 2, "lemmas": True,
         "vectors": "KB_embeddings/terms_concept2vec.txt", "retrieved": "retrieve_terms/{dataset}.data",
         "pruned": "retrieve_terms/{dataset}_concept2vec.txt"}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the commands have left behind."""

    data: DataFolder
    config: Path          # of the knowledge bases
    output: Path          # of training and evaluation

    @property
    def checkpoint(self) -> Path:
        """The last one."""
        return self.output / "finetune_checkpoint" / "KTNET_squad-3_1.ckpt"

    @property
    def flags(self) -> list[str]:
        """What every command is told."""
        return ["--data_url", str(self.data.root), "--kb_config", str(self.config)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """The four commands of docs/knowledge.md, from the data sets' JSON on."""
    root = tmp_path_factory.mktemp("third")
    data = make_inputs(root)
    (data.bert() / "bert_config.json").write_text(json.dumps(dataclasses.asdict(small_training.ENCODER)))
    write_checkpoint(data.bert() / "roberta.ckpt", small_training.random_encoder(small_training.ENCODER))
    made = Trained(data, root / "kb.json", root / "output")
    write_concept_vectors(data.root / TERMS["vectors"], ["body", "official", "shore", "weather"], np.ones((4, 2)))
    (data.root / "KB_embeddings/terms_map.json").write_text(json.dumps({
        "river's bank": ["shore"], "mayor of Lima": ["official"], "storm": ["weather"], "moon": ["body"]}))
    made.config.write_text(json.dumps([*own_bases(data), TERMS]))
    squad = [*made.flags, "--dataset", "squad"]
    for step in ("tokens", "wordnet", "own"):
        retrieve.main([*squad, "--step", step])
    windows = small_training.WINDOWS
    data_convert.main([*squad, "--num_workers", "1", "--max_seq_len", str(windows.max_seq_len), "--doc_stride",
                       str(windows.doc_stride), "--max_query_length", str(windows.max_query_length)])
    run_KTNET_squad.main(small_training.flags(data, made.output, epoch=3, kb_config=made.config))
    run_KTNET_squad_eval.main([*made.flags, "--device_target", "CPU", "--checkpoints", str(root / "eval"),
                               "--load_checkpoint_path", str(made.checkpoint), "--save_logits", str(root / "l.npz")])
    return made


def test_the_features_hold_the_maps_concepts(trained):
    bases = load_knowledge_bases(trained.config)
    features = read_dense(trained.data.mindrecord(SQUAD, "dev"), "dev", bases, small_training.WINDOWS.max_seq_len)
    found: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in OWN}
    for feature in features:
        for name in OWN:
            for piece, concepts in zip(feature["src_ids"].tolist(), lists(feature[f"{name}_concept_ids"]), strict=True):
                if concepts:
                    found[name][small_data.VOCABULARY[piece]] = concepts
    # water: wet 1, flowing 2, dry 3, and no word has more than one. places: town 1; the mayor of Lima is not in the map
    # terms: official 1, shore 2 of what is left of the table; storm and moon are nowhere
    assert found == {"water": {"river": (2,), "lies": (3,)}, "places": {"Lima": (1,)},
                     "terms": {**dict.fromkeys(("mayor", "of", "Lima"), (1,)),
                               **dict.fromkeys(("river", "'", "s", "banks"), (2,))}}
    assert read_concept_names(trained.data.table(bases[-1], SQUAD)) == ["official", "shore"]


def test_the_memories_are_trained_and_their_vectors_are_not(trained):
    weights = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(trained.checkpoint)).items()}
    for name, shape in (("water", (3, 2)), ("places", (2, 2)), ("terms", (2, 2))):
        table = np.zeros((16, 16), np.float32)
        table[1:shape[0] + 1, :shape[1]] = 1           # own_bases' vectors
        np.testing.assert_array_equal(weights[f"embedding_{name}.embedding_table"], table)
        assert np.abs(weights[f"MemoryLayer_{name}.sentinel"]).max() > 0          # it starts at 0
    assert not any(name.startswith("embedding_nell") for name in weights)         # the list of bases names it not


def answers(trained: Trained) -> dict[str, tuple[str, np.ndarray]]:
    """Question -> predict.py's answer and start logits."""
    from src.inference import Reader

    reader = Reader(PredictionSettings.parse([*trained.flags, "--load_checkpoint_path", str(trained.checkpoint),
                                              "--ner", "none"]))
    found = {}
    for passage in tagged_passages(trained.data):
        for question in passage.questions:
            asked = reader.predict(passage.text, question.text, passage.entities, question.entities)
            found[question.id] = asked.decoded.prediction, asked.results[0].start_logits
    return found


def test_a_question_is_answered_as_in_evaluation_and_by_the_maps(trained):
    predictions = read_json(trained.data.root / "eval" / "predictions.json")
    logits = Logits.load(trained.data.root / "l.npz")
    asked = answers(trained)
    assert {identity: text for identity, (text, _) in asked.items()} == predictions and len(predictions) == 2
    for example in read_side_table(trained.data.mindrecord(SQUAD, "dev")):
        mine, theirs = asked[example.id][1], logits[example.windows[0].unique_id][0]      # without and with padding
        np.testing.assert_allclose(mine, theirs[:len(mine)], rtol=0, atol=2e-6)
    for base in load_knowledge_bases(trained.config):
        if base.name in OWN:      # without its map, what the network reads is something else
            path = map_path(trained.data, base)
            whole = path.read_text()
            path.write_text("{}")
            try:
                assert np.abs(answers(trained)["d2"][1] - asked["d2"][1]).max() > 1e-5
            finally:
                path.write_text(whole)


def test_features_without_the_third_base_are_refused(trained, tmp_path):
    (tmp_path / "two.json").write_text(json.dumps(read_json(trained.config)[:1]))
    flags = [*trained.flags[:3], str(tmp_path / "two.json"), "--load_checkpoint_path", str(trained.checkpoint)]
    from src.inference import Reader

    settings = PredictionSettings.parse([*flags, "--ner", "none"])
    with pytest.raises(InputError, match="--kb_config.*reads the knowledge base water"):
        Reader(settings)


def test_concepts_that_the_network_lacks_are_ignored_and_counted(trained, tmp_path, capsys):
    """From a checkpoint and from its model folder: "storm" names a concept that no text of the data set named."""
    from src.inference import Reader

    export.main(["--file_format", "FOLDER", "--export_path", str(tmp_path / "model"), "--device_target", "CPU",
                 "--load_checkpoint_path", str(trained.checkpoint), *trained.flags])
    assert (tmp_path / "model" / "concepts" / "terms.txt").read_text() == "official\nshore\n"
    passage, question = "The storm lies by the river's banks .", "Where is the mayor of Lima ?"
    logits = []
    for source in (["--load_checkpoint_path", str(trained.checkpoint), *trained.flags],
                   ["--model", str(tmp_path / "model")]):
        reader = Reader(PredictionSettings.parse([*source, "--ner", "none"]))
        capsys.readouterr()
        logits.append(reader.predict(passage, question).results[0].start_logits)
        said = capsys.readouterr().err
        assert "terms: 1 concepts named by this passage and question are not in the network" in said
    np.testing.assert_array_equal(*logits)
