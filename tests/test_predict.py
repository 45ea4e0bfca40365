# SPDX-License-Identifier: Apache-2.0
"""predict.py answers as evaluation does; its page holds the network's own numbers."""
from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
import predict  # noqa: E402
import run_KTNET_squad_eval  # noqa: E402
from src.config import (  # noqa: E402
    KNOWLEDGE_BASES,
    SQUAD,
    DataFolder,
)
from src.knowledge.concepts import read_concept_names  # noqa: E402
from src.reader.examples import read_side_table  # noqa: E402
from src.reader.logits import Logits  # noqa: E402
from src.settings import PredictionSettings  # noqa: E402
from src.viewer.names import describe  # noqa: E402
from testing.small_checkpoint import make_checkpoint  # noqa: E402
from testing.small_predict import SAMPLE, WINDOWS  # noqa: E402
from testing.small_predict import sample_flags as flags  # noqa: E402
from testing.small_raw import tagged_passages  # noqa: E402
from utils.util import InputError, read_json, run_main  # noqa: E402


@pytest.fixture(scope="module")
def evaluated(folder):
    """What run_KTNET_squad_eval.py makes of the converted files."""
    output = folder.root / "eval"
    run_KTNET_squad_eval.main(flags(folder, "--device_target", "CPU", "--checkpoints", output, "--save_logits",
                                    folder.root / "logits.npz"))
    return output


@pytest.fixture(scope="module")
def page(folder, evaluated):
    """The page of that evaluation, and what is in it."""
    path = folder.root / "evaluation.html"
    predict.main(flags(folder, "--evaluation", evaluated, "--html", path, "--compare"))
    text = path.read_text("utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


@pytest.mark.slow
def test_answers_and_logits_are_those_of_evaluation(folder, evaluated):
    from src.inference import Reader

    reader = Reader(PredictionSettings.parse(flags(folder, "--ner", "none", "--save_logits", "unused.npz",
                                                   "--whole_words", "False")))
    logits, table = Logits.load(folder.root / "logits.npz"), list(read_side_table(folder.mindrecord(SQUAD, "dev")))
    predictions, nbest = (read_json(evaluated / name) for name in ("predictions.json", "nbest_predictions.json"))
    asked = [(passage, question) for passage in tagged_passages(folder) for question in passage.questions]
    assert len(asked) == len(table) > 10 and max(len(example.windows) for example in table) > 1
    known = 0
    for (passage, question), example in zip(asked, table, strict=True):
        answered = reader.predict(passage.text, question.text, passage.entities, question.entities)
        assert answered.example.windows == example.windows        # the unique ids count on in reading order, too
        for window, result in zip(example.windows, answered.results, strict=True):
            for mine, theirs in zip((result.start_logits, result.end_logits), logits[window.unique_id], strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)
            known += np.count_nonzero(result.concept_ids[1])
        assert answered.decoded.prediction == predictions[question.id]
        expected, given = nbest[question.id], reader.result(answered)
        assert [entry["text"] for entry in given.to_dict()["nbest"]] == [entry["text"] for entry in expected]
        assert given.probability == pytest.approx(expected[0]["probability"], abs=1e-5)
        for entry in given.n_best:
            assert " ".join(passage.text[entry.start:entry.end].split()) == entry.text
    assert known > 100                                            # NELL had its part in it


def test_entities_are_what_nell_hangs_on(folder, evaluated):
    """Without them, and only without them, the logits differ."""
    from src.knowledge.live import LiveKnowledge
    from src.reader.passages import Passage

    knowledge = LiveKnowledge(folder, KNOWLEDGE_BASES, ner="none")
    passage = next(iter(tagged_passages(folder)))
    first = Passage(passage.text, passage.entities, passage.questions[:1])
    with_names, without = knowledge.records(first), knowledge.records(first._replace(entities=()))
    assert with_names[0] is None and any(item["retrieved_concepts"] for item in with_names[1]["document_entities"])
    assert not without[1]["document_entities"]


@pytest.mark.slow
def test_the_page_holds_the_networks_attention(folder, page):
    """Against the memories' equations in NumPy, from the network's own hidden states and tables."""
    from src.dataset import create_dev_dataset
    from src.inference.reader import open_network
    from src.inference.sources import filled_settings

    data = page[1]
    settings = filled_settings(PredictionSettings.parse(flags(folder)))
    names = [read_concept_names(folder.vectors(base)) for base in KNOWLEDGE_BASES]
    runner, config = open_network(settings, {"knowledge_bases": [
        {"name": base.name, "concepts": len(of_base)} for base, of_base in zip(KNOWLEDGE_BASES, names, strict=True)]})
    network = runner._network
    attention = {}
    dataset = create_dev_dataset(folder.mindrecord(SQUAD, "dev"), max_seq_len=WINDOWS.max_seq_len)
    for columns in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
        inputs = [ms.Tensor(columns[name]) for name in ("input_mask", "src_ids", "pos_ids", "sent_ids")]
        hidden = network.bert(*inputs, network.first_step).asnumpy().astype(np.float64)
        for memory, layer, table in zip(config.memories, network.memories, network.embeddings, strict=True):
            rows = table.embedding_table.asnumpy().astype(np.float64)
            query = hidden @ layer.dense_1.weight.asnumpy().astype(np.float64).T
            for place, ids in enumerate(columns[memory.column][0, :, :, 0]):
                used = ids[ids > 0]
                scores = np.concatenate(([query[place] @ layer.sentinel.asnumpy()], rows[used] @ query[place]))
                weights = np.exp(scores - scores.max())
                attention[columns["unique_id"].item(), memory.name, place] = used, weights / weights.sum()
    compared = 0
    examples = {example.id: example for example in read_side_table(folder.mindrecord(SQUAD, "dev"))}
    for case in data["cases"]:
        example, count = examples[case["id"]], len(case["pieces"])
        for base, readings in enumerate(case["memory"]):
            for position, number, *parts in readings:
                assert sum(parts) == data["unit"]
                # the windows that hold the piece: the page shows one of them
                found = [attention[window.unique_id, KNOWLEDGE_BASES[base].name, 1 + position if position < count
                                   else example.document_offset + position - count - window.doc_start]
                         for window in example.windows
                         if position < count or 0 <= position - count - window.doc_start < window.length]
                shown = [data["names"][base][concept][:2] for concept in data["lists"][number]]
                assert all(shown == [list(describe(names[base][concept - 1])[:2]) for concept in used]
                           for used, _ in found)
                assert min(np.abs(weights - np.array(parts) / data["unit"]).max() for _, weights in found) < 1e-6
                compared += len(parts)
    assert compared > 500


def test_the_page_of_an_evaluation_lists_every_question(evaluated, page):
    data = page[1]
    assert all([label for label, *_ in case["compared"]] == ["without WordNet", "without NELL", "without any memory"]
               for case in data["cases"])
    assert ["mason", "noun, sense 1", "someone who builds with stone"] in data["names"][0]
    predictions, result = read_json(evaluated / "predictions.json"), read_json(evaluated / "eval_result.json")
    assert {case["id"]: case["answer"] for case in data["cases"]} == predictions
    assert 100 * np.mean([case["right"] for case in data["cases"]]) == pytest.approx(result["exact_match"])
    assert np.mean([case["f1"] for case in data["cases"]]) == pytest.approx(result["f1"], abs=0.06)
    assert {(base, group) for base, group, *_ in data["looked"]} >= {(0, "all concepts"), (0, "noun")}
    for case in data["cases"]:
        assert all(sum(case[key][1::2]) == data["unit"] for key in ("start", "end"))


@pytest.mark.parametrize("change, message", [
    ("vectors", "its concepts are not those, or not in the order, that the features were made with"),
    ("vocabulary", "was converted with another vocabulary"), ("features", "has changed since it was written")])
def test_a_page_of_other_files_is_refused(folder, tmp_path, change, message):
    """Names, word pieces and features would be others than those that were evaluated."""
    data = DataFolder(tmp_path / "data")
    shutil.copytree(folder.root, data.root)
    path = {"vectors": data.vectors(KNOWLEDGE_BASES[0]), "vocabulary": data.root / "vocab.txt",
            "features": data.mindrecord(SQUAD, "dev")}[change]
    if change == "features":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        *lines, last, lone = path.read_text("utf-8").splitlines()
        path.write_text("\n".join([*lines, lone, last]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        predict.main(flags(data, "--evaluation", tmp_path, "--html", tmp_path / "page.html", "--vocab_path",
                           data.root / "vocab.txt"))


@pytest.mark.slow
def test_the_command_line(folder, capsys, monkeypatch, tmp_path):
    """Questions from standard input, JSON out, a page beside it; SQuAD 2.0's "no answer" takes part."""
    passage = next(iter(tagged_passages(folder))).text
    file = tmp_path / "passage.txt"
    file.write_text(passage, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("Who built the Clock Tower of Tarn?\n\nWhat is it made of?\n"))
    predict.main(flags(folder, "--passage_file", file, "--json", "--ner", "none", "--html", tmp_path / "out.html",
                       "--version_2_with_negative", True, "--null_score_diff_threshold", -1e9))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["question"] for line in lines] == ["Who built the Clock Tower of Tarn?", "What is it made of?"]
    for line in lines:
        assert line["answer"] == "" and "null_odds" in line
        assert sum(entry["probability"] for entry in line["nbest"]) == pytest.approx(1)
        assert line["probability"] == next(entry["probability"] for entry in line["nbest"] if not entry["text"])
    assert '"answer":""' in (tmp_path / "out.html").read_text("utf-8")


@pytest.mark.slow      # six processes
def test_the_first_graph_of_a_process_is_kept(folder, tmp_path):
    """And loaded by the next process; a damaged one is compiled again.

    Each kind of network and length has a folder of its own. A folder that cannot be made is done without.
    """
    from src.inference.graph_cache import DIGEST, files_digest
    from src.weights.sizes import load_config, save_config

    small = load_config(folder.root / "KTNET_squad-1_1.ckpt")
    config = replace(small, bert=replace(small.bert, max_position_embeddings=160), max_seq_len=160)
    make_checkpoint(tmp_path / "long.ckpt", config)
    save_config(tmp_path / "long.ckpt", config, {"max_seq_len": 160, "doc_stride": 64, "max_query_length": 120,
                                                 "vocab_path": str(folder.root / "vocab.txt")})
    short, long, graphs = "Who built it?", "Who built it? " * 25, tmp_path / "graphs"

    def answer(*questions, cache=graphs, more=()):
        """Of one process: the probabilities, the lengths compiled for, whether a graph was loaded, and its log."""
        done = subprocess.run(
            [sys.executable, "predict.py", *flags(folder, "--load_checkpoint_path", tmp_path / "long.ckpt",
             "--device_target", "CPU", "--ner", "none", "--json", "--passage", "The mason Henrik Dale built it.",
             *(f"--question={question}" for question in questions), *more)], cwd=SAMPLE.parents[1], text=True,
            capture_output=True, check=True, timeout=300,
            env={**os.environ, "KTNET_GRAPH_CACHE": str(cache), "GLOG_v": "2"})     # MindSpore's warnings, too
        return ([json.loads(line)["probability"] for line in done.stdout.splitlines()],
                re.findall("compiled for ([0-9]+) word pieces", done.stderr),
                "Use the compilation cache" in done.stderr, done.stderr)

    def kept():
        """The folders of all graphs: of each file that MindSpore wrote, what changes when it is written again."""
        folders = {}
        for place in graphs.iterdir():
            assert (place / DIGEST).read_text("utf-8") == files_digest(place) and place.stat().st_mode & 0o77 == 0
            folders[place] = {path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
                              for path in place.rglob("*") if path.is_file() and path.name != DIGEST}
            assert [path.name for path in folders[place] if path.suffix == ".mindir"] == ["compile_cache_0.mindir"]
        return folders

    expected, lengths, loaded, _ = answer(short, long)
    first = kept()
    assert lengths == ["128", "160"] and not loaded and len(first) == 1
    assert answer(short, long)[:3] == (expected, ["128", "160"], True) and kept() == first
    graph = next(graphs.rglob("*.mindir"))
    damaged = bytearray(graph.read_bytes())
    damaged[damaged.index(b"Default/")] ^= 1        # in the name of an operator: MindSpore would load it
    graph.chmod(0o600)
    graph.write_bytes(damaged)
    assert answer(short)[:3] == (expected[:1], ["128"], False)
    again = kept()
    assert again.keys() == first.keys() and graph.read_bytes() != damaged
    assert answer(long)[:3] == (expected[1:], ["160"], False)       # the second graph of the first process
    two = kept()
    assert len(two) == 2 and two.items() > again.items()
    probabilities, _, loaded, _ = answer(short, more=["--html", tmp_path / "unused.html"])
    assert probabilities == pytest.approx(expected[:1], abs=1e-6) and not loaded
    assert len(kept()) == 3 and kept().items() > two.items()
    (tmp_path / "file").touch()
    *same, log = answer(short, long, cache=tmp_path / "file")
    assert same == [expected, lengths, False] and "graphs are not kept" in log


def test_a_folder_without_a_graph_gets_no_digest(tmp_path, monkeypatch):
    """It would be that of nothing."""
    from src.inference.graph_cache import GraphCache

    monkeypatch.setattr(ms, "set_context", lambda **_: None)
    monkeypatch.setattr("mindspore.graph.api.entry_script_path", __file__)    # a worker of pytest-xdist has no file
    monkeypatch.setattr(GraphCache, "used", False)
    with GraphCache(None, WINDOWS, tmp_path).of([]):
        pass
    assert GraphCache.used and [list(place.iterdir()) for place in tmp_path.iterdir()] == [[]]


@pytest.mark.parametrize(("name", "value"), [("KTNET_GRAPH_CACHE", "off"), ("XDG_CACHE_HOME", "relative"),
                                             ("XDG_CACHE_HOME", "/caf\udce9")])
def test_no_graph_is_kept_where_nobody_wants_it(monkeypatch, name, value):
    from src.inference.graph_cache import cache_folder

    monkeypatch.delenv("KTNET_GRAPH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home")
    assert str(cache_folder()) == "/home/ktnet"
    monkeypatch.setenv(name, value)
    assert cache_folder() is None


@pytest.mark.slow
def test_memories_can_be_switched_off_for_comparison(folder, capsys):
    """Without entities NELL's memory reads nothing, so that switching it off changes nothing."""
    predict.main(flags(folder, "--passage", "The mason Henrik Dale built the Clock Tower of Tarn.", "--question",
                       "Who built the Clock Tower?", "--ner", "none", "--json", "--compare"))
    line = json.loads(capsys.readouterr().out)
    no_wordnet, no_nell, neither = line["compared"]
    assert [other["label"] for other in line["compared"]] == ["without WordNet", "without NELL", "without any memory"]
    assert (no_nell["prediction"], no_nell["probability"]) == (line["answer"], line["probability"])
    assert (no_wordnet["prediction"], no_wordnet["probability"]) == (neither["prediction"], neither["probability"])
    assert no_wordnet["probability"] != line["probability"]


@pytest.mark.slow
def test_a_pipe_is_utf_8_and_an_answer_goes_to_any_terminal(folder, monkeypatch, capfd):
    asked = flags(folder, "--passage", "Der T\u00fcrmer, Ida R\u00f6th, lived in Tarn.", "--ner", "none")
    piped = {"utf-8": "\ufeffWho is the T\u00fcrmer?\n".encode(), "latin-1": "T\u00fcrmer?\n".encode("latin-1")}
    for more in ((), ("--json",)):
        shown = io.BytesIO()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped["utf-8"]), encoding="ascii"))
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
        run_main(predict.main, [*asked, *more])
        text = shown.getvalue().decode("ascii")
        question = json.loads(text)["question"] if more else text.splitlines()[0]
        assert question == ("Who is the T\u00fcrmer?" if more else "Who is the T\\xfcrmer?")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped["latin-1"]), encoding="latin-1"))
    with pytest.raises(SystemExit) as ended:
        run_main(predict.main, asked)
    assert ended.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: standard input: byte 0xfc is not UTF-8")


@pytest.mark.parametrize("more, message", [
    ([], "--passage"), (["--passage", "a", "--passage_file", "b"], "--passage"),
    (["--passage_file", "absent.txt"], "absent.txt"),
    (["--passage", "a b", "--html", "absent/page.html"], "there is no folder absent"),
    (["--passage", "a b", "--question", "c", "--vocab_path", "absent"], "absent"),
    (["--passage", "a b", "--question", "c", "--wordnet_path", "absent"], "absent")])
def test_bad_input_is_named(folder, more, message):
    with pytest.raises((InputError, FileNotFoundError), match=re.escape(message)):
        predict.main(flags(folder, *more))


@pytest.mark.parametrize("more, message", [
    (["--passage", "a b", "--question", "Who?", "--question", ""], "--question '': no words in the question"),
    (["--passage", "a b", "--question", "\u200b"], "no words in the question"),
    (["--passage_file", "EMPTY"], "no words in the passage"), (["--passage", " \n"], "no words in the passage"),
    (["--evaluation", "eval"], "--html"), (["--evaluation", "eval", "--html", "p.html", "--passage", "a"], "--html"),
    (["--serve", "0", "--evaluation", "eval"], "--serve"), (["--serve", "70000"], "--serve 70000: cannot listen")])
def test_what_needs_no_network_is_refused_before_mindspore_is_loaded(monkeypatch, tmp_path, more, message):
    (tmp_path / "empty.txt").write_text("\ufeff \n", encoding="utf-8")
    (tmp_path / "a.ckpt").touch()
    for module in ("reader", "predict", "evaluation_page"):
        monkeypatch.setitem(sys.modules, f"src.inference.{module}", None)
    with pytest.raises(InputError, match=re.escape(message)):
        predict.main(["--load_checkpoint_path", str(tmp_path / "a.ckpt"),
                      *[str(tmp_path / "empty.txt") if word == "EMPTY" else word for word in more]])


ASK = SAMPLE.parents[1] / "scripts" / "ask.sh"


def ask(*arguments, **environment):
    """scripts/ask.sh with a Python that prints what it is given."""
    return subprocess.run(["bash", str(ASK), *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})


def test_asking_the_quickstarts_network(tmp_path):
    """The newest checkpoint and its data folder; a text or a file; flags go on to predict.py."""
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "${@:2}"\n', encoding="utf-8")
    python.chmod(0o755)
    for number, name in enumerate(("old", "new")):
        path = tmp_path / "out put" / name / "squad" / "finetune_checkpoint" / "KTNET_squad-1_2.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (number, number))
        (path.parents[1] / "finished").touch()
    passage = tmp_path / "passage.txt"
    passage.write_text("A passage.", encoding="utf-8")
    values = {"PYTHON": str(python), "OUTPUT": str(tmp_path / "out put")}
    folder = tmp_path / "out put" / "new"
    expected = ["--data_url", f"{folder}/data", "--load_checkpoint_path",
                f"{folder}/squad/finetune_checkpoint/KTNET_squad-1_2.ckpt"]
    for separator in ([], ["--"]):
        assert ask("--a passage", "Why?", "-x?", *separator, "--json", **values).stdout.splitlines() == [
            *expected, "--passage=--a passage", "--question=Why?", "--question=-x?", "--json"]
    assert ask("--serve", "0", **values).stdout.splitlines() == [*expected, "--serve", "0"]
    assert ask(str(passage), **values).stdout.splitlines() == [*expected, f"--passage_file={passage}"]
    own = ask("a b", "c", CHECKPOINT="a.ckpt", DATAPATH="d", **values).stdout.splitlines()
    assert own[:4] == ["--data_url", "d", "--load_checkpoint_path", "a.ckpt"]


def test_asking_before_the_training_has_ended(tmp_path):
    """Which step answers is said, and whether the training is at work; not once it has finished."""
    path = tmp_path / "sample" / "squad" / "finetune_checkpoint" / "KTNET_squad-4_18.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    values = {"OUTPUT": str(tmp_path), "PYTHON": "/bin/true"}
    with open(tmp_path / ".quickstart.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = ask("a b", "c", **values).stderr
    stopped = ask("a b", "c", **values).stderr
    assert running == f"the training is still running: the network of its epoch 4, step 18, answers ({path})\n"
    assert stopped == running.replace("is still running", "was stopped before its end")
    (path.parents[1] / "finished").touch()
    assert ask("a b", "c", **values).stderr == ""


@pytest.mark.parametrize("arguments, values, message", [
    (["absent.txt", "Why?"], {}, "'absent.txt': no such file"),
    (["my notes/absent file.txt", "Why?"], {}, "no such file"),
    (["/absent/folder of texts", "Why?"], {}, "no such file"), (["/tmp", "Why?"], {}, "'/tmp': a folder"),
    (["word", "Why?"], {}, "neither a file nor a passage of several words"),
    (["", "Why?"], {}, "no words in the passage"),
    ([], {}, "QUESTION"),
    (["a b", "c"], {"OUTPUT": "/nowhere"}, "quickstart.sh first"), (["a b"], {"CHECKPOINT": "a.ckpt"}, "DATAPATH=DIR")])
def test_asking_in_vain(tmp_path, arguments, values, message):
    path = tmp_path / "run" / "squad" / "finetune_checkpoint" / "KTNET_squad-1_2.ckpt"
    path.parent.mkdir(parents=True)
    (tmp_path / "run" / "data").mkdir()
    path.touch()
    ended = ask(*arguments, **{"OUTPUT": str(tmp_path), "PYTHON": sys.executable, **values})
    assert ended.returncode == 2 and message in ended.stdout + ended.stderr


def test_what_is_missing_is_said_once_and_left_out(folder, tmp_path, caplog, monkeypatch):
    from src.knowledge import live

    def no_model():
        raise InputError("the model is not installed")

    root = tmp_path / "data"
    shutil.copytree(folder.root / "KB_embeddings", root / "KB_embeddings")
    shutil.copytree(folder.root / "nltk", root / "nltk")
    monkeypatch.setattr(live.LOGGER, "propagate", True)
    knowledge = live.LiveKnowledge(DataFolder(root), KNOWLEDGE_BASES)
    assert "promoted_beliefs.tsv" in caplog.text and knowledge.tag(["Paris"]) == [()]
    caplog.clear()
    monkeypatch.setattr(live, "SpacyTagger", no_model)
    knowledge = live.LiveKnowledge(folder, KNOWLEDGE_BASES)
    assert "the model is not installed" in caplog.text and knowledge.tag(["Paris"]) == [()]
