# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set, made side by side: retrieve.py and data_convert.py with --shard, trained on together."""
from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

import data_convert
import retrieve
from src.config import KNOWLEDGE_BASES, SPLITS, SQUAD, DataFolder, Shard
from src.data_convert import joined
from src.dataset import create_train_dataset, feature_lengths, plan_device_rows
from src.knowledge.entities import TagCache, tag_dataset
from src.reader.squad_twomemory import read_examples
from src.reader.storage import feature_paths, features_digest, open_converted
from testing import small_data
from testing.small_raw import make_inputs
from tests.test_convert import read_dense
from utils.util import InputError

COUNT = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The features of a whole data set and, in another folder, of each part of it."""
    few = small_data.squad()
    for name in SPLITS:
        for article in few[name]["data"]:
            article["paragraphs"] = [
                {"context": paragraph["context"] + " The storm hit a town." * times,
                 "qas": [{**question, "id": f"{question['id']}-{times}"} for question in paragraph["qas"]]}
                for paragraph in article["paragraphs"] for times in range(6)]
    root = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_data, "squad", lambda: few)
        (root / "whole").mkdir()
        whole = make_inputs(root / "whole")
    shutil.copytree(whole.root, root / "parts")
    flags = ["--dataset", "squad"]
    retrieve.main(["--data_url", str(whole.root), *flags])
    data_convert.main(["--data_url", str(whole.root), *flags, "--num_workers", "1"])
    for number in range(1, COUNT + 1):
        part = ["--data_url", str(root / "parts"), *flags, "--shard", f"{number}/{COUNT}"]
        retrieve.main(part)
        data_convert.main([*part, "--num_workers", "1"])
    return whole, [DataFolder(root / "parts", Shard(number, COUNT)) for number in range(1, COUNT + 1)]


def contents(features):
    """Features without what numbers them."""
    return Counter(tuple((name, column.tobytes()) for name, column in feature.items() if name != "unique_id")
                   for feature in features)


@pytest.mark.parametrize("split", SPLITS)
def test_the_parts_are_the_whole(made, split):
    whole, parts = made
    of_parts = [read_dense(part.mindrecord(SQUAD, split), split) for part in parts]
    assert all(of_parts) and not (parts[0].root / "SQuAD" / f"{split}.mindrecord").exists()
    assert sum(map(contents, of_parts), Counter()) == contents(read_dense(whole.mindrecord(SQUAD, split), split))


def test_a_part_is_converted_from_what_was_retrieved_for_all(made, tmp_path):
    whole, parts = made
    shutil.copytree(whole.root, tmp_path / "copy")
    data_convert.main(["--data_url", str(tmp_path / "copy"), "--dataset", "squad", "--split", "train", "--shard",
                       f"2/{COUNT}", "--num_workers", "1"])
    mine = DataFolder(tmp_path / "copy", Shard(2, COUNT)).mindrecord(SQUAD, "train")
    assert contents(read_dense(mine, "train")) == contents(read_dense(parts[1].mindrecord(SQUAD, "train"), "train"))


def test_training_reads_several_files_as_one(made):
    """Every batch has the rows that were planned for it, whose lengths decide the bucket."""
    whole, parts = made
    files = ",".join(str(part.mindrecord(SQUAD, "train")) for part in reversed(parts))
    dense = [feature for part in reversed(parts) for feature in read_dense(part.mindrecord(SQUAD, "train"), "train")]
    lengths = feature_lengths(files)
    assert lengths.tolist() == [int(feature["input_mask"].sum()) for feature in dense]
    plan = {"batch_size": 4, "buckets": (32, 384), "seed": 3}
    rows = plan_device_rows(files, **plan)
    batches = create_train_dataset(files, knowledge_bases=KNOWLEDGE_BASES, **plan).create_dict_iterator(
        num_epochs=1, output_numpy=True)
    for expected, batch in zip(rows, batches, strict=True):
        length = batch["src_ids"].shape[1]
        np.testing.assert_array_equal(batch["src_ids"], [dense[row]["src_ids"][:length] for row in expected])
    assert set(rows.ravel().tolist()) == set(range(len(dense)))
    pattern = parts[0].root / "SQuAD" / f"train.*-of-{COUNT}.mindrecord"
    assert feature_paths(pattern) == tuple(part.mindrecord(SQUAD, "train") for part in parts)
    assert features_digest(pattern) != features_digest(files)        # another order is another training
    assert feature_lengths(pattern).sum() == feature_lengths(whole.mindrecord(SQUAD, "train")).sum()


def test_files_that_do_not_go_together(made, tmp_path):
    _, parts = made
    path = parts[0].mindrecord(SQUAD, "train")
    with pytest.raises(InputError, match="named twice"):
        feature_paths(f"{path},{path}")
    assert feature_paths(tmp_path / "a,b" / "train.mindrecord") == (tmp_path / "a,b" / "train.mindrecord",)
    with pytest.raises(InputError, match="no file fits"):
        feature_paths(tmp_path / "*.mindrecord")
    manifests = [open_converted(part.mindrecord(SQUAD, "train")) for part in parts[:2]]
    paths = [part.mindrecord(SQUAD, "train") for part in parts[:2]]
    assert joined(paths, manifests)["rows"] == sum(manifest["rows"] for manifest in manifests)
    for shard in (f"1/{COUNT}", "2/2"):
        other = {**manifests[1], "settings": {**manifests[1]["settings"], "shard": shard}}
        with pytest.raises(InputError, match=f"{paths[1]}: holds passages that are in {paths[0]} too .part {shard} an"):
            joined(paths, [manifests[0], other])
    manifests[1]["knowledge_bases"][0]["concepts_sha256"] = "another"
    with pytest.raises(InputError, match="other concepts"):
        joined(paths, manifests)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "\u0661/2"])
def test_shards_that_are_none(text):
    with pytest.raises(ValueError, match="not a part"):
        Shard.read(text)


def test_entities_of_a_part(tmp_path, made):
    whole, _ = made
    source = whole.dataset_json(SQUAD, "train")

    class Tagger:
        name = "none"

        def tag(self, texts):
            return ([] for _ in texts)

    found = []
    for number in range(1, COUNT + 1):
        shard, target = Shard(number, COUNT), tmp_path / f"{number}.json"
        tag_dataset(source, target, TagCache(tmp_path / f"{number}.jsonl"), Tagger, shard.holds)
        found.append([example.id for example in read_examples(target, "dev", tagged=True)])
    assert all(found) and sorted(sum(found, [])) == sorted(example.id for example in read_examples(source, "dev"))
