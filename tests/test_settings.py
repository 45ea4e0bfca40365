# SPDX-License-Identifier: Apache-2.0
"""Settings: flags declared once, resolved once, never changed in place."""
from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import typing
from pathlib import Path

import pytest

from src import settings as all_settings
from src.checks import check_training
from src.config import RECORD, SQUAD
from src.data_convert import as_converted
from src.settings import (
    AS_CONVERTED,
    EvaluationSettings,
    ExportSettings,
    PostprocessSettings,
    PredictionSettings,
    PreprocessSettings,
    TrainingSettings,
)
from utils.args import Settings, declared
from utils.util import InputError, write_json

ROOT = Path(__file__).parents[1]
CODE = [*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("utils/*.py")]
OF_ONE_TASK = (EvaluationSettings, TrainingSettings)
SCRIPTS = [cls for cls in vars(all_settings).values()
           if isinstance(cls, type) and issubclass(cls, Settings) and cls.prog]
CONVERTED = {"max_seq_len": 96, "doc_stride": 32, "max_query_length": 24, "lower_case": True,
             "version_2_with_negative": False}


def test_a_namespace_is_seen_where_parsers_are_made_and_nowhere_else():
    for path in CODE:
        if path not in (ROOT / "utils" / "args.py", ROOT / "utils" / "rank_table.py"):
            assert not re.search(r"\bNamespace\b|\bargparse\b", path.read_text("utf-8")), path


@pytest.mark.parametrize("cls", SCRIPTS, ids=lambda cls: cls.__name__)
def test_every_script_has_a_help_that_tells_each_flag_once(cls):
    task = RECORD if cls in OF_ONE_TASK else None
    text = cls.parser(task).format_help()
    names = [one.name for one in declared(cls, task)]
    assert len(set(names)) == len(names) > 2 and "{task" not in text
    for one in declared(cls, task):
        assert one.flag.help and re.search(rf"^  --{one.name}\b", text, re.M), one.name


@pytest.mark.parametrize("cls", SCRIPTS, ids=lambda cls: cls.__name__)
def test_every_flag_has_a_reader(cls):
    """Its name stands as an attribute somewhere in the code that is no declaration."""
    read = set()
    for path in CODE:
        read |= {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert [one.name for one in declared(cls, SQUAD) if one.name not in read] == []


def test_settings_are_frozen_through_and_through():
    def check(cls):
        assert cls.__dataclass_params__.frozen, cls
        hints = typing.get_type_hints(cls)
        for item in dataclasses.fields(cls):
            if "group" in item.metadata:
                check(hints[item.name])
    for cls in SCRIPTS:
        check(cls)


def test_what_is_left_out_follows_from_what_is_given():
    settings = TrainingSettings.parse(["--data_url", "d", "--checkpoints", "c", "--train_file", "t.json"], RECORD)
    assert settings.data.vocab_path == Path("d/cased_L-24_H-1024_A-16/vocab.txt")
    assert settings.job.train_file == Path("t.json") and settings.run.predict_file == Path("d/ReCoRD/dev.json")
    assert settings.job.save_finetune_checkpoint_path == Path("c/finetune_checkpoint")
    assert (settings.run.batch_size, settings.recipe.epoch, settings.recipe.learning_rate) == (12, 4, 6e-5)
    moved = settings.with_flags(data_url=Path("elsewhere")).resolved()
    assert moved.run.predict_file == Path("elsewhere/ReCoRD/dev.json") and moved.job.train_file == Path("t.json")
    assert settings.data.data_url == Path("d")
    assert settings.given == {"data_url", "checkpoints", "train_file"}


def test_an_evaluation_has_the_training_s_settings():
    training = TrainingSettings.parse(["--use_ema", "False", "--n_best_size", "3", "--use_nell", "False"], SQUAD)
    evaluation = training.evaluation(Path("a.ckpt"))
    parsed = EvaluationSettings.parse(["--use_ema", "False", "--n_best_size", "3", "--use_nell", "False",
                                       "--load_checkpoint_path", "a.ckpt"], SQUAD)
    assert dataclasses.replace(evaluation, given=parsed.given) == parsed


def test_flags_that_were_left_out_are_as_the_features_were_converted():
    left_out = PredictionSettings.parse(["--load_checkpoint_path", "a.ckpt", "--max_seq_len", "96"])
    settings = as_converted(left_out, CONVERTED, Path("dev.mindrecord"))
    assert dataclasses.astuple(settings.features) == (True, 96, 32, 24, False)
    assert set(AS_CONVERTED) <= settings.given
    with pytest.raises(InputError, match="--doc_stride 32: other.mindrecord was converted with 64"):
        as_converted(settings, {**CONVERTED, "doc_stride": 64}, Path("other.mindrecord"))


def test_plain_values_name_every_flag():
    settings = TrainingSettings.parse(["--save_steps", "5"], SQUAD)
    plain = settings.plain()
    assert list(plain) == sorted(one.name for one in declared(TrainingSettings, SQUAD))
    assert plain["save_steps"] == 5 and plain["train_file"] == "data/SQuAD/train-v1.1.json" and plain["freeze"] is False


@pytest.mark.parametrize(("cls", "argv", "said"), [
    (EvaluationSettings, [], "run_KTNET_squad_eval.py: the following arguments are required: --load_checkpoint_path"),
    (TrainingSettings, ["--epoch", "0"], "argument --epoch: '0' is not a whole number of at least 1"),
    (TrainingSettings, ["--freeze", "maybe"], "'maybe' is neither True nor False"),
    (TrainingSettings, ["--random_seed", "2147483648"], "'2147483648' is more than 2147483647"),
    (TrainingSettings, ["--batch_size", "9" * 5000], "--batch_size: '9999"),
    (TrainingSettings, ["--null_score_diff_threshold", "nan"], "'nan' is no finite number"),
    (TrainingSettings, ["--learning_rate", "inf"], "'inf' is no finite number"),
    (TrainingSettings, ["--warm", "0.1"], "unrecognized arguments: --warm"),
    (PostprocessSettings, ["--dataset", "trivia"], "invalid choice: 'trivia'")])
def test_a_flag_that_cannot_be_used_is_one_line(cls, argv, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cls.parse(argv, SQUAD if cls in OF_ONE_TASK else None)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 1 and said in lines[0] and len(lines[0]) < 300


# --- commands of the model zoo and of the older port ---

SEED_EVALUATION = shlex.split("""--device_target CPU --device_id 0 --batch_size 4 --do_train True --do_predict False
    --do_lower_case False --init_pretraining_params a --load_pretrain_checkpoint_path a --load_checkpoint_path b
    --train_file c --predict_file d --train_mindrecord_file e --predict_mindrecord_file f --vocab_path g
    --bert_config_path h --freeze False --save_steps 1 --weight_decay 0.1 --warmup_proportion 0.1 --learning_rate 0.1
    --epoch 1 --max_seq_len 384 --doc_stride 128 --wn_concept_embedding_path i --nell_concept_embedding_path j
    --use_wordnet True --use_nell True --random_seed 45 --save_finetune_checkpoint_path k --data_url l
    --is_modelarts False --checkpoints m""")


def test_an_evaluation_takes_the_flags_of_the_model_zoo_and_says_which_have_no_effect(caplog):
    settings = EvaluationSettings.parse(SEED_EVALUATION, RECORD)
    assert settings.checkpoint.load_checkpoint_path == Path("b") and settings.run.batch_size == 4
    assert settings.run.predict_mindrecord_file == Path("f") and "epoch" not in settings.given
    line, = caplog.messages
    assert line.startswith("run_KTNET_record_eval.py: no effect here, only training reads --do_train, --do_predict,")
    assert line.count("--") == 13 and "--epoch" in line and "--use_nell" not in line      # two names of one file
    with pytest.raises(SystemExit):
        EvaluationSettings.parse(["--load_checkpoint_path", "b", "--epoch", "many"], RECORD)
    with pytest.raises(SystemExit):
        EvaluationSettings.parse(["--load_checkpoint_path", "b", "--resume", "True"], RECORD)


def test_the_older_port_s_names_are_aliases():
    assert ExportSettings.parse(["--dataset", "squad", "--ckpt_file", "a"]).checkpoint.load_checkpoint_path == Path("a")
    assert TrainingSettings.parse(["--train_url", "obs://out"], SQUAD).modelarts.save_url == "obs://out"
    harness = PreprocessSettings.parse(["--dataset", "squad", "--eval_data_file_path", "d.mindrecord",
                                        "--result_path", "inputs"]).harness
    assert (harness.predict_mindrecord_file, harness.preprocess_path) == (Path("d.mindrecord"), Path("inputs"))
    after = PostprocessSettings.parse(["--dataset", "squad", "--label_dir", "inputs/06_data", "--result_dir", "out"])
    assert (after.harness.inputs, after.results.result_path) == (Path("inputs"), Path("out"))
    assert PostprocessSettings.parse(["--dataset", "squad", "--preprocess_path", "in"]).harness.inputs == Path("in")


@pytest.mark.parametrize(("flags", "evaluated"), [
    (["--load_checkpoint_path", "b.ckpt", "--init_checkpoint", "a.ckpt"], "b.ckpt"),
    (["--init_checkpoint", "a.ckpt"], "a.ckpt"), ([], None)])
def test_without_training_the_checkpoint_that_was_named_is_evaluated(monkeypatch, flags, evaluated):
    loop = pytest.importorskip("src.training.loop")
    done = []
    monkeypatch.setattr(loop, "evaluate_checkpoint", lambda settings, output: done.append(settings))
    settings = TrainingSettings.parse(["--device_target", "CPU", "--do_train", "False", "--do_predict", "True", *flags],
                                      SQUAD)
    if evaluated is None:
        with pytest.raises(InputError, match="give the checkpoint by --load_checkpoint_path"):
            check_training(settings)
    else:
        loop.run_training(settings)
        assert [str(one.checkpoint.load_checkpoint_path) for one in done] == [evaluated]


def test_a_flag_is_named_as_the_user_wrote_it():
    for words, name in ((["--model", "a"], "--model"), (["--model=a"], "--model"),
                        (["--load_checkpoint_path", "a"], "--load_checkpoint_path")):
        assert PredictionSettings.parse(words).with_flags(dataset="squad").spelled("load_checkpoint_path") == name
    assert ExportSettings.parse(["--ckpt_file", "a"]).spelled("load_checkpoint_path") == "--ckpt_file"


# --- settings from a file, help, mistakes ---

def test_a_file_sets_flags_and_the_command_line_wins(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("learning_rate: 1e-4\nfreeze: yes\nepoch: 7\nsave_steps:\ninit_pretraining_params: a.ckpt\n")
    settings = TrainingSettings.parse(["--config", str(path), "--epoch", "2"], SQUAD)
    assert (settings.recipe.learning_rate, settings.recipe.freeze, settings.recipe.epoch) == (1e-4, True, 2)
    assert settings.job.load_pretrain_checkpoint_path == Path("a.ckpt") and settings.job.save_steps is None
    assert settings.given == {"learning_rate", "freeze", "epoch", "load_pretrain_checkpoint_path"}


def test_saved_options_can_be_given_back(tmp_path):
    first = TrainingSettings.parse(["--freeze", "True", "--data_url", "d", "--ema_decay", "0.5"], RECORD)
    write_json(tmp_path / "options_record.json", first.plain())
    again = TrainingSettings.parse(["--config", str(tmp_path / "options_record.json")], RECORD)
    assert dataclasses.replace(again, given=first.given) == first
    asked = PredictionSettings.parse(["--load_checkpoint_path", "a", "--question", "Who?", "--question", "Why?"])
    write_json(tmp_path / "asked.json", asked.plain())
    assert PredictionSettings.parse(["--config", str(tmp_path / "asked.json")]).question.question == ("Who?", "Why?")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_in_config_can_be_used(path):
    tasks = [task for task in (SQUAD, RECORD) if path.name.startswith((task.name, "small", "two"))]
    assert tasks
    for task in tasks:
        settings = TrainingSettings.parse(["--config", str(path)], task)
        assert settings.recipe.learning_rate > 0 and settings.given & {"learning_rate", "recipe", "stages"}
        stages = 1 + ("authors" in path.name or "two" in path.name)
        assert len(settings.recipe.in_stages(settings.task.first_stages)) == stages
        by_launcher = ["--config", str(ROOT / "config" / "two_stages.yaml"), "--config", str(path)]
        assert TrainingSettings.parse(by_launcher, task).recipe.stages == settings.recipe.stages


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.yaml", "learning_rat: 1", "learning_rat: run_KTNET_squad.py has no such flag; did you mean learning_rate?"),
    ("a.yaml", "epoch: 0", "epoch: '0' is not a whole number of at least 1"),
    ("a.yaml", "epoch: [1, 2]", "epoch: one value is wanted"),
    ("a.yaml", "device_target: gpu", "device_target: 'gpu' is none of"),
    ("a.yaml", "- epoch", "not a list of flags"),
    ("a.yaml", "a: [", "not YAML"),
    ("a.yaml", "a: !!python/object:os.system {}", "not YAML"),
    ("a.yaml", "random_seed: " + "9" * 5000, "a.yaml"),
    ("a.yaml", "epoch: !!timestamp x", "not YAML"),
    ("a.yaml", "freeze: !!bool x", "not YAML"),
    ("a.yaml", "data_url: \"a\\0b\"", "data_url: holds a character"),
    ("a.yaml", "data_url: \"\\ud800\"", "data_url: holds a character"),
    ("a.yaml", "lr_schedule: " + "x" * 5000, "lr_schedule: 'xxx"),
    ("a.json", "{\"data_url\": \"a\\u0000b\"}", "data_url: holds a character"),
    ("a.yaml", "kb_pad_multiple: 1000000", "kb_pad_multiple: '1000000' is more than 1024"),
    ("a.yaml", "epoch: 1\nepoch: 2", "epoch is given twice"),
    ("a.json", '{"epoch": 1, "epoch": 2}', "the key 'epoch' comes twice"),
    ("a.yaml", "load_pretrain_checkpoint_path: a\ninit_pretraining_params: b", "given twice, under two names"),
    ("a.json", "{", "not JSON"),
    ("b.yaml", None, "b.yaml: no such file; the recipes")])
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        TrainingSettings.parse(["--config", str(tmp_path / name)], SQUAD)
    assert said in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_a_program_gives_flags_as_the_command_line_does():
    values = PredictionSettings.from_values(
        {"load_checkpoint_path": "X.ckpt", "data_url": "data", "whole_words": False, "question": ("Who?",)}, "here")
    settings = PredictionSettings.of(values)
    assert settings.data.folder.bert() == Path("data/cased_L-24_H-1024_A-16")
    assert not settings.question.whole_words and settings.question.question == ("Who?",)
    with pytest.raises(InputError, match="here: whole_word: .*did you mean whole_words"):
        PredictionSettings.from_values({"whole_word": False}, "here")


@pytest.mark.parametrize("cls", SCRIPTS, ids=lambda cls: cls.__name__)
def test_a_help_begins_with_two_calls_that_can_be_made(cls, monkeypatch):
    monkeypatch.chdir(ROOT)
    task = SQUAD if cls in OF_ONE_TASK else None
    lines = cls.parser(task).format_help().splitlines()
    assert lines[1] == "" and len(lines[0]) > 10
    for line in lines[2:4]:
        start, script, *flags = shlex.split(line)
        assert start == "python" and (ROOT / script).is_file()
        cls.parse(flags, task)


@pytest.mark.parametrize(("flags", "meant"), [
    (["--learning-rate", "1"], "--learning_rate"), (["--num_train_epochs", "3"], "--epoch"),
    (["--seed=3"], "--random_seed"), (["--bach_size", "3"], "--batch_size"), (["--device_target", "cpu"], "CPU"),
    (["--lr_schedule", "const"], "constant"), (["\u2014resume", "True"], "--resume")])
def test_what_was_probably_meant_is_said(flags, meant, capsys):
    with pytest.raises(SystemExit):
        TrainingSettings.parse(flags, SQUAD)
    assert f"; did you mean {meant}? (--help" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "said"), [("--passage", "the text is not UTF-8"),
                                            ("--data_url", "the name of a file or folder is not UTF-8; rename it")])
def test_an_argument_that_is_not_utf_8_is_refused(flag, said, capsys):
    with pytest.raises(SystemExit):
        PredictionSettings.parse(["--load_checkpoint_path", "a", flag, os.fsdecode(b"caf\xe9")])
    error = capsys.readouterr().err
    assert f"argument {flag}: caf\\udce9: {said}" in error and error.count("\n") == 1
