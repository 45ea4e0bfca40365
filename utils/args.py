"""Every command-line flag, declared once, by group.

A script composes its parser from groups; a flag that a script does not read is not in its parser and is refused.
Booleans are written the model zoo's way: ``--freeze True``.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from src.config import DOC_STRIDE, KB_PAD_MULTIPLE, MAX_QUERY_LEN, MAX_SEQ_LEN, DataFolder, TaskConfig


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells each flag's default, except where it is None: there the help's brackets say what is taken instead."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """Complains in one line and with exit code 2; abbreviated flags are refused."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        print(f"error: {self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def boolean(text: str) -> bool:
    """Read True or False in the ways people write them."""
    lowered = text.strip().lower()
    if lowered in ("true", "t", "yes", "y", "1"):
        return True
    if lowered in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def whole_number(text: str, least: int) -> int:
    """Read a whole number of at least ``least``."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return value


def positive_int(text: str) -> int:
    """Read a whole number of at least 1."""
    return whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """Read a whole number of at least 0."""
    return whole_number(text, 0)


def non_negative_float(text: str) -> float:
    """Read a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def fraction(text: str) -> float:
    """Read a number from 0 up to, but not including, 1."""
    value = non_negative_float(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1)")
    return value


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Where to run."""
    group = parser.add_argument_group("device")
    group.add_argument("--device_target", choices=("Ascend", "GPU", "CPU"), default="Ascend", help="device to run on")
    group.add_argument("--device_id", type=non_negative_int, default=0,
                       help="number of the device; a distributed run takes its rank's own")


def add_data_flags(parser: argparse.ArgumentParser, as_converted: bool = False) -> None:
    """Where the data lies and how passages become features.

    Args:
        parser: to add to.
        as_converted: the features exist: a flag that is left out is as they were converted (None), one that is given
            is checked against that.
    """
    def default(value: Any) -> Any:
        return None if as_converted else value

    note = " [as the features were converted]" if as_converted else ""
    group = parser.add_argument_group("data")
    group.add_argument("--data_url", type=Path, default=Path("./data"),
                       help="data folder; files named by no other flag are looked for below it")
    group.add_argument("--vocab_path", type=Path, help="vocabulary of the encoder, one word piece a line "
                                                       "[cased_L-24_H-1024_A-16/vocab.txt]")
    group.add_argument("--do_lower_case", type=boolean, default=default(False),
                       help="lower-case the text (uncased encoders); picks the cased or uncased token files" + note)
    group.add_argument("--max_seq_len", type=positive_int, default=default(MAX_SEQ_LEN),
                       help="word pieces of a feature" + note)
    group.add_argument("--doc_stride", type=positive_int, default=default(DOC_STRIDE),
                       help="word pieces between the starts of two windows of a passage" + note)
    group.add_argument("--max_query_length", type=positive_int, default=default(MAX_QUERY_LEN),
                       help="word pieces of a question that are kept" + note)
    group.add_argument("--version_2_with_negative", type=boolean, default=default(False),
                       help="SQuAD 2.0: some questions have no answer" + note)
    group.add_argument("--kb_config", type=Path, help="JSON list of knowledge bases [WordNet and NELL]")


def add_conversion_flags(parser: argparse.ArgumentParser) -> None:
    """Data set to MindRecord."""
    group = parser.add_argument_group("conversion")
    group.add_argument("--dataset", choices=("squad", "record", "all"), default="all", help="which data set")
    group.add_argument("--split", choices=("train", "dev", "all"), default="all", help="which split")
    group.add_argument("--num_workers", type=positive_int, help="processes that build features [number of cores]")
    group.add_argument("--force", action="store_true", help="convert again what is already converted")


def add_network_flags(parser: argparse.ArgumentParser, from_checkpoint: bool = False) -> None:
    """What shapes the network: saved with every checkpoint.

    Args:
        parser: to add to.
        from_checkpoint: the checkpoint's own sizes count; a memory flag that is given is checked against them.
    """
    note = " [as the checkpoint]" if from_checkpoint else ""
    group = parser.add_argument_group("network")
    group.add_argument("--bert_config_path", type=Path,
                       help="sizes of the encoder [cased_L-24_H-1024_A-16/bert_config.json]" + note)
    group.add_argument("--use_wordnet", type=boolean, default=None if from_checkpoint else True,
                       help="read the WordNet memory" + note)
    group.add_argument("--use_nell", type=boolean, default=None if from_checkpoint else True,
                       help="read the NELL memory" + note)
    group.add_argument("--wn_concept_embedding_path", type=Path,
                       help="WordNet concept vectors [KB_embeddings/wn_concept2vec.txt]")
    group.add_argument("--nell_concept_embedding_path", type=Path,
                       help="NELL concept vectors [KB_embeddings/nell_concept2vec.txt]")
    group.add_argument("--kb_pad_multiple", type=positive_int, default=KB_PAD_MULTIPLE,
                       help="pad rows and columns of the concept tables to a multiple of this")


def add_run_flags(parser: argparse.ArgumentParser, task: TaskConfig) -> None:
    """Flags that training and evaluation share."""
    group = parser.add_argument_group("run")
    group.add_argument("--batch_size", type=positive_int, default=task.batch_size,
                       help="features of a step, per device")
    group.add_argument("--buckets", type=positive_int, default=4,
                       help="lengths that batches are padded to; each is compiled once, 1 pads all to max_seq_len")
    group.add_argument("--checkpoints", type=Path, default=Path("output"), help="folder of logs and results")
    group.add_argument("--predict_file", type=Path, help="data set for evaluation, JSON "
                                                         f"[{task.folder}/{task.json_files['dev']}]")
    group.add_argument("--predict_mindrecord_file", type=Path,
                       help=f"features for evaluation, made from predict_file if absent [{task.folder}/dev.mindrecord]")


def add_training_flags(parser: argparse.ArgumentParser, task: TaskConfig) -> None:
    """The recipe."""
    group = parser.add_argument_group("training")
    group.add_argument("--do_train", type=boolean, default=True, help="train")
    group.add_argument("--do_predict", type=boolean, default=False, help="evaluate when the training is done")
    group.add_argument("--train_file", type=Path,
                       help=f"data set for training, JSON [{task.folder}/{task.json_files['train']}]")
    group.add_argument("--train_mindrecord_file", type=Path,
                       help=f"features for training, made from train_file if absent [{task.folder}/train.mindrecord]")
    group.add_argument("--load_pretrain_checkpoint_path", "--init_pretraining_params", type=Path,
                       help="pretrained encoder, from src/bert_ms_format.py [cased_L-24_H-1024_A-16/roberta.ckpt]")
    group.add_argument("--init_checkpoint", type=Path,
                       help="KT-NET checkpoint to start from (the second stage starts from the frozen first)")
    group.add_argument("--freeze", type=boolean, default=False, help="leave the encoder as it is (first stage)")
    group.add_argument("--epoch", type=positive_int, default=task.epochs, help="passes over the training set")
    group.add_argument("--learning_rate", type=non_negative_float, default=task.learning_rate,
                       help="peak learning rate")
    group.add_argument("--warmup_proportion", type=fraction, default=0.1,
                       help="share of the steps in which the learning rate rises")
    group.add_argument("--weight_decay", type=non_negative_float, default=0.01, help="decoupled weight decay")
    group.add_argument("--max_grad_norm", type=non_negative_float, default=1.0,
                       help="clip the gradient to this global norm; 0 does not clip")
    group.add_argument("--use_ema", type=boolean, default=True, help="keep a moving average of the weights and "
                                                                     "evaluate it")
    group.add_argument("--ema_decay", type=fraction, default=0.9999, help="decay of the moving average")
    group.add_argument("--loss_scale", type=non_negative_float, default=65536.0,
                       help="first dynamic loss scale (float16 on GPU and Ascend)")
    group.add_argument("--random_seed", type=non_negative_int, default=45,
                       help="seed of initial weights, order and dropout")
    group.add_argument("--accumulation_steps", type=positive_int, default=1,
                       help="batches whose gradients are added up before the weights are updated")
    group.add_argument("--do_val", type=boolean, default=False,
                       help="evaluate after every epoch and keep the best checkpoint as KTNET_*-best.ckpt")
    group.add_argument("--resume", type=boolean, default=False,
                       help="go on with the training in the checkpoint folder, if there is one")
    group.add_argument("--force_memory", type=boolean, default=False,
                       help="train even if the estimate of memory exceeds what is there")
    group.add_argument("--save_steps", type=positive_int, help="steps between checkpoints [once an epoch]")
    group.add_argument("--keep_checkpoint_max", type=positive_int, default=3, help="checkpoints that are kept")
    group.add_argument("--save_finetune_checkpoint_path", type=Path,
                       help="folder of the checkpoints [finetune_checkpoint below --checkpoints]")
    group.add_argument("--is_distribute", type=boolean, default=False, help="data parallel over several devices")
    group.add_argument("--device_num", type=positive_int, default=1,
                       help="devices of a distributed run; checked against what was started")


def add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """From logits to answers."""
    group = parser.add_argument_group("evaluation")
    group.add_argument("--n_best_size", type=positive_int, default=20, help="answers kept for a question")
    group.add_argument("--max_answer_length", type=positive_int, default=30, help="word pieces of an answer")
    group.add_argument("--null_score_diff_threshold", type=float, default=0.0,
                       help="SQuAD 2.0: no answer when its score beats the best answer's by more than this")
    group.add_argument("--save_logits", type=Path, metavar="PATH.npz",
                       help="also write unique_id, start_logits, end_logits")


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint an evaluation takes."""
    group = parser.add_argument_group("checkpoint")
    group.add_argument("--load_checkpoint_path", type=Path, required=True, help="KT-NET checkpoint to evaluate")
    group.add_argument("--use_ema", type=boolean, default=True,
                       help="evaluate the moving average of the weights where the checkpoint has one")


def add_modelarts_flags(parser: argparse.ArgumentParser) -> None:
    """Huawei ModelArts: copy data in and results out through moxing."""
    group = parser.add_argument_group("ModelArts")
    group.add_argument("--is_modelarts", type=boolean, default=False,
                       help="run as a ModelArts job: --data_url is copied from object storage first")
    group.add_argument("--save_url", help="where ModelArts wants the results")
    group.add_argument("--log_url", help="where ModelArts wants the logs")


def training_parser(task: TaskConfig) -> argparse.ArgumentParser:
    """Flags of run_KTNET_{squad,record}.py."""
    parser = OneLineParser(prog=f"run_KTNET_{task.name}.py", description=f"Train KT-NET on {task.folder}.")
    add_device_flags(parser)
    add_data_flags(parser, as_converted=True)
    add_network_flags(parser)
    add_run_flags(parser, task)
    add_training_flags(parser, task)
    add_evaluation_flags(parser)
    add_modelarts_flags(parser)
    return parser


def evaluation_parser(task: TaskConfig) -> argparse.ArgumentParser:
    """Flags of run_KTNET_{squad,record}_eval.py."""
    parser = OneLineParser(prog=f"run_KTNET_{task.name}_eval.py", description=f"Evaluate KT-NET on {task.folder}.")
    add_device_flags(parser)
    add_data_flags(parser, as_converted=True)
    add_network_flags(parser, from_checkpoint=True)
    add_run_flags(parser, task)
    add_checkpoint_flags(parser)
    add_evaluation_flags(parser)
    add_modelarts_flags(parser)
    return parser


def add_bin_flags(parser: argparse.ArgumentParser) -> None:
    """What preprocess.py and postprocess.py share."""
    group = parser.add_argument_group("inference harness")
    group.add_argument("--dataset", choices=("squad", "record"), required=True, help="which data set")
    group.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder")
    group.add_argument("--predict_mindrecord_file", type=Path,
                       help="converted dev features [SQuAD/dev.mindrecord or ReCoRD/dev.mindrecord below --data_url]")
    group.add_argument("--preprocess_path", type=Path, default=Path("./preprocess_result"),
                       help="folder of the network's inputs as raw files")


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """What the exported file is."""
    group = parser.add_argument_group("export")
    group.add_argument("--dataset", choices=("squad", "record"), required=True,
                       help="data set of the checkpoint; names the file")
    group.add_argument("--file_format", choices=("MINDIR", "ONNX", "AIR"), default="MINDIR",
                       help="AIR is written on Ascend alone")
    group.add_argument("--file_path", type=Path, default=Path("./mindir"), help="folder of the file")
    group.add_argument("--file_name", help="name of the file, without its ending [KTNET_squad or KTNET_record]")
    group.add_argument("--batch_size", type=positive_int, default=1,
                       help="questions of one inference; the inference harness takes 1")
    group.add_argument("--max_seq_len", type=positive_int, help="word pieces of a feature [as the checkpoint]")
    group.add_argument("--bert_config_path", type=Path, default=DataFolder(Path("./data")).bert() / "bert_config.json",
                       help="sizes of the encoder, for a checkpoint of the older port that has none beside it")


def export_parser() -> argparse.ArgumentParser:
    """Flags of export.py."""
    parser = OneLineParser(prog="export.py", description="Export a KT-NET checkpoint for inference elsewhere.")
    add_device_flags(parser)
    add_checkpoint_flags(parser)
    add_export_flags(parser)
    return parser


def preprocess_parser() -> argparse.ArgumentParser:
    """Flags of preprocess.py."""
    parser = OneLineParser(prog="preprocess.py", description="Write dev features as raw files for the 310 harness.")
    add_bin_flags(parser)
    group = parser.add_argument_group("network")
    group.add_argument("--use_wordnet", type=boolean, default=True, help="the exported network reads WordNet")
    group.add_argument("--use_nell", type=boolean, default=True, help="the exported network reads NELL")
    return parser


def postprocess_parser() -> argparse.ArgumentParser:
    """Flags of postprocess.py."""
    parser = OneLineParser(prog="postprocess.py", description="Turn the 310 harness's results into answers.")
    add_bin_flags(parser)
    add_evaluation_flags(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--result_path", type=Path, default=Path("./result_files"),
                       help="folder of the harness's results")
    group.add_argument("--output_path", type=Path, default=Path("./output"),
                       help="folder for predictions.json and the like")
    group.add_argument("--ignore_padding", type=boolean, default=False,
                       help="choose the n best among word pieces only, as evaluation does, and not as BERT's SQuAD "
                            "code among all positions")
    return parser


def add_question_flags(parser: argparse.ArgumentParser) -> None:
    """What predict.py is asked, and how it answers."""
    group = parser.add_argument_group("question")
    group.add_argument("--passage", help="the text that holds the answers")
    group.add_argument("--passage_file", type=Path, help="a text file with the passage")
    group.add_argument("--question", action="append", default=[],
                       help="may be given several times; left out, questions are read from standard input, one a line")
    group.add_argument("--dataset", choices=("squad", "record"),
                       help="what the checkpoint was trained on; record prefers answers that are entities [as the "
                            "checkpoint says, else squad]")
    group.add_argument("--json", action="store_true", help="one JSON object a question, a line each")
    group.add_argument("--html", type=Path, help="also write a page that shows the knowledge behind every word")
    group = parser.add_argument_group("knowledge")
    group.add_argument("--wordnet_path", type=Path, help="folder of WordNet 3.0's files, or NLTK's wordnet.zip "
                                                         "[nltk/corpora/wordnet, else NLTK's own]")
    group.add_argument("--ner", choices=("spacy", "corenlp", "none"), default="spacy", help="finder of named entities")
    group.add_argument("--corenlp_url", default="http://127.0.0.1:9753", help="address of the CoreNLP server")
    group = parser.add_argument_group("evaluation page")
    group.add_argument("--evaluation", type=Path, metavar="FOLDER",
                       help="results of run_KTNET_*_eval.py: --html shows its questions in place of one passage")
    group.add_argument("--predict_mindrecord_file", type=Path,
                       help="the features that were evaluated [SQuAD/dev.mindrecord or ReCoRD/dev.mindrecord]")
    group.add_argument("--page_questions", type=positive_int, default=500, help="most questions of the page")


def prediction_parser() -> argparse.ArgumentParser:
    """Flags of predict.py."""
    parser = OneLineParser(prog="predict.py", description="Answer questions about a passage of your own.")
    add_question_flags(parser)
    add_checkpoint_flags(parser)
    add_device_flags(parser)
    add_data_flags(parser, as_converted=True)
    add_network_flags(parser, from_checkpoint=True)
    add_evaluation_flags(parser)
    parser.set_defaults(device_target="CPU")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; unknown flags end the program with exit code 2."""
    return parser.parse_args(argv)


def fill_paths(args: argparse.Namespace, task: TaskConfig) -> None:
    """Give every file flag that was left out its place below --data_url or --checkpoints."""
    data = DataFolder(args.data_url)
    defaults = {"vocab_path": data.bert() / "vocab.txt", "bert_config_path": data.bert() / "bert_config.json",
                "train_file": data.dataset_json(task, "train"), "predict_file": data.dataset_json(task, "dev"),
                "train_mindrecord_file": data.mindrecord(task, "train"),
                "predict_mindrecord_file": data.mindrecord(task, "dev"),
                "load_pretrain_checkpoint_path": data.bert() / "roberta.ckpt",
                "save_finetune_checkpoint_path": args.checkpoints / "finetune_checkpoint"}
    for name, path in defaults.items():
        if getattr(args, name, path) is None:
            setattr(args, name, path)
