# SPDX-License-Identifier: Apache-2.0
"""Every flag of every script, declared once, in frozen classes that are passed on in place of a command line.

A script's settings are made of groups (``settings.recipe.learning_rate``). They are resolved when they are read: paths
that were left out are below ``--data_url`` or ``--checkpoints``. What depends on files (features that were converted
earlier, a checkpoint's sizes) replaces flags later, in copies; ``settings.given`` says which ones the user gave.
Imports no MindSpore.
"""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from src.config import (
    CORENLP_URL,
    DOC_STRIDE,
    KB_PAD_MULTIPLE,
    KNOWLEDGE_BASES,
    MAX_QUERY_LEN,
    MAX_SEQ_LEN,
    SQUAD,
    TASKS,
    DataFolder,
    FirstStage,
    KnowledgeBase,
    LrSchedule,
    TaskConfig,
    WindowConfig,
    load_knowledge_bases,
)
from utils.args import (
    FlagGroup,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    OnOff,
    PadMultiple,
    PositiveInt,
    Settings,
    ShardOf,
    flag,
    group,
)
from utils.device import choose_compute_type
from utils.util import InputError

N = TypeVar("N", bound="NetworkRunSettings")
AS_CONVERTED = dict.fromkeys(("do_lower_case", "max_seq_len", "doc_stride", "max_query_length",
                              "version_2_with_negative"), "as the features were converted")
AS_CHECKPOINT = dict.fromkeys(("use_wordnet", "use_nell"), "as the checkpoint")
DatasetName = Literal["squad", "record"]
VOCABULARY, BERT_CONFIG = "vocab.txt", "bert_config.json"
WORDNET_HELP = "folder of WordNet 3.0's files, or NLTK's wordnet.zip [nltk/corpora/wordnet, else NLTK's own]"
SHARD_HELP = "only part I of N, counted from 1, into files of its own: a job of an array"
LABEL_FOLDER = re.compile(r"\d\d_data")


@dataclass(frozen=True)
class DeviceSettings(FlagGroup, title="device"):
    """Where to run."""

    device_target: Literal["auto", "Ascend", "GPU", "CPU"] = flag("auto", "device to run on; auto takes Ascend where "
                                                                          "there is one, else a GPU, else the CPU")
    device_id: NonNegativeInt = flag(0, "number of the device; a distributed run takes its rank's own")

    @property
    def is_cpu(self) -> bool:
        """Whether it is the CPU; known once the device has been chosen."""
        assert self.device_target != "auto"
        return self.device_target == "CPU"


@dataclass(frozen=True)
class NetworkDeviceSettings(DeviceSettings):
    """Where the network runs, and in which type it computes."""

    compute_type: Literal["auto", "float32", "bfloat16", "float16"] = flag("auto", (
        "type of the inputs of matrix products. auto: float16 on Ascend and GPU; bfloat16 on a CPU that multiplies it "
        "faster, else float32"))


@dataclass(frozen=True)
class DataSettings(FlagGroup, title="data"):
    """Where the data is."""

    data_url: Path = flag(Path("./data"), "data folder; all files that no other flag names are below it")
    vocab_path: Path = flag(derive=lambda settings: settings.data.folder.bert() / VOCABULARY, help=(
        "vocabulary of the encoder, one word piece per line [cased_L-24_H-1024_A-16/vocab.txt]"))
    kb_config: Path | None = flag(None, "JSON list of knowledge bases [knowledge_bases.json if it is there, else "
                                        "WordNet and NELL]")

    @property
    def folder(self) -> DataFolder:
        """The location of every file."""
        return DataFolder(self.data_url)

    def bases(self) -> tuple[KnowledgeBase, ...]:
        """The knowledge bases that are configured."""
        return knowledge_bases(self.kb_config or self.folder.kb_config())


def knowledge_bases(kb_config: Path | None) -> tuple[KnowledgeBase, ...]:
    """The knowledge bases of a file, by default WordNet and NELL."""
    return load_knowledge_bases(kb_config) if kb_config else KNOWLEDGE_BASES


@dataclass(frozen=True)
class FeatureSettings(FlagGroup, title="data"):
    """How passages become features."""

    do_lower_case: bool = flag(False, "lower-case the text (uncased encoders); picks the cased or uncased token files")
    max_seq_len: PositiveInt = flag(MAX_SEQ_LEN, "word pieces of a feature")
    doc_stride: PositiveInt = flag(DOC_STRIDE, "word pieces between the starts of two windows of a passage")
    max_query_length: PositiveInt = flag(MAX_QUERY_LEN, "word pieces of a question that are kept")
    version_2_with_negative: bool = flag(False, "SQuAD 2.0: some questions have no answer")

    @property
    def windows(self) -> WindowConfig:
        """How a passage is cut."""
        return WindowConfig(self.max_seq_len, self.doc_stride, self.max_query_length)


@dataclass(frozen=True)
class NetworkSettings(FlagGroup, title="network"):
    """What shapes the network: saved with every checkpoint."""

    bert_config_path: Path = flag(derive=lambda settings: settings.data.folder.bert() / BERT_CONFIG, help=(
        "sizes of the encoder [cased_L-24_H-1024_A-16/bert_config.json]"))
    use_wordnet: bool = flag(True, "read the WordNet memory")
    use_nell: bool = flag(True, "read the NELL memory")
    wn_concept_embedding_path: Path | None = flag(None, "WordNet concept vectors [KB_embeddings/wn_concept2vec.txt]")
    nell_concept_embedding_path: Path | None = flag(None, "NELL concept vectors [KB_embeddings/nell_concept2vec.txt]")
    kb_pad_multiple: PadMultiple = flag(KB_PAD_MULTIPLE, "pad rows and columns of the concept tables to a multiple of "
                                                         "this")


@dataclass(frozen=True)
class RunSettings(FlagGroup, title="run"):
    """What training and evaluation share."""

    batch_size: PositiveInt = flag(of_task="batch_size", help="features of a step, per device")
    buckets: PositiveInt = flag(4, "lengths that batches are padded to; each is compiled once, 1 pads all to "
                                   "max_seq_len")
    checkpoints: Path = flag(Path("output"), "folder of logs and results")
    check_only: bool = flag(False, "check flags, files, packages and devices, then end; a training also prints its "
                                   "checkpoint folder and the files of an earlier one it would replace")
    predict_file: Path = flag(derive=lambda settings: settings.data.folder.dataset_json(settings.task, "dev"), help=(
        "data set for evaluation, JSON [{task.folder}/{task.json_files[dev]}]"))
    predict_mindrecord_file: Path = flag(derive=lambda settings: settings.data.folder.mindrecord(settings.task, "dev"),
                                         help="features for evaluation, made from predict_file if absent "
                                              "[{task.folder}/dev.mindrecord]")


SECOND_LEARNING_RATE = 3e-5                # of the authors' second stage, for both data sets


@dataclass(frozen=True)
class Recipe(FlagGroup, title="training"):
    """How the weights learn. Everything that a step needs of the command line is here."""

    stages: Literal["one", "two"] = flag("one", "two: first with a frozen encoder, then all weights, in one run")
    recipe: Literal["default", "authors"] = flag("default", "how the first of two stages learns by default")
    first_epoch: PositiveInt = flag(
        derive=lambda settings: settings.task.first_stages[settings.recipe.recipe].epochs,
        help="passes over the training set in the first of two stages [as --recipe]")
    first_learning_rate: NonNegativeFloat = flag(
        derive=lambda settings: settings.task.first_stages[settings.recipe.recipe].learning_rate,
        help="peak learning rate of the first of two stages [as --recipe]")
    freeze: bool = flag(False, "do not train the encoder; the first of two stages never does")
    encoder_dropout: bool = flag(
        derive=lambda settings: settings.task.first_stages[settings.recipe.recipe].encoder_dropout,
        help="dropout in a frozen encoder [as --recipe]")
    keep_encoded: bool = flag(True, "compute the output of a frozen encoder without dropout once and keep it, where "
                                    "memory allows")
    epoch: PositiveInt = flag(of_task="epochs", help="passes over the training set; of the second of two stages")
    learning_rate: NonNegativeFloat = flag(
        derive=lambda settings: (SECOND_LEARNING_RATE if settings.recipe.stages == "two"
                                 else settings.task.learning_rate),
        help="peak learning rate [{task.learning_rate}; second of two stages 3e-5]")
    head_learning_rate: NonNegativeFloat | None = flag(None, "peak learning rate of all weights above the encoder "
                                                             "[learning_rate]")
    lr_schedule: LrSchedule = flag("linear", "learning rate after the warm-up: linear falls to 0, constant stays")
    warmup_proportion: Fraction = flag(0.1, "share of the steps in which the learning rate rises")
    weight_decay: NonNegativeFloat = flag(0.01, "decoupled weight decay")
    max_grad_norm: NonNegativeFloat = flag(1.0, "clip the gradient to this global norm; 0 does not clip")
    use_ema: bool = flag(True, "keep a moving average of the weights and evaluate it")
    ema_decay: Fraction = flag(0.9999, "decay of the moving average")
    loss_scale: NonNegativeFloat = flag(65536.0, "first dynamic loss scale (float16 on GPU and Ascend); 0 uses none")
    random_seed: NonNegativeInt = flag(45, "seed of initial weights, order and dropout")
    accumulation_steps: PositiveInt = flag(1, "batches whose gradients are added up before the weights are updated")

    @property
    def head_factor(self) -> float:
        """The learning rate of all other weights, divided by the encoder's."""
        if self.head_learning_rate is None or self.learning_rate == 0.0:
            return 1.0
        return self.head_learning_rate / self.learning_rate

    def in_stages(self, first_stages: Mapping[str, FirstStage]) -> tuple[Recipe, ...]:
        """The recipe of every stage; of the first of two, ``first_stages`` has what no flag says."""
        if self.head_learning_rate and self.learning_rate == 0.0:
            raise InputError("--learning_rate 0 with --head_learning_rate: the other weights' rate is a multiple of "
                             "the encoder's; give one rate, with --freeze True to leave the encoder as it is")
        if self.stages == "one":
            return (self,)
        if self.freeze:
            raise InputError("--freeze True: the first of two stages is frozen anyway, the second is not; leave out "
                             "--freeze or --stages two")
        named = first_stages[self.recipe]
        first = dataclasses.replace(
            self, freeze=True, epoch=self.first_epoch, learning_rate=self.first_learning_rate, head_learning_rate=None,
            lr_schedule=named.lr_schedule, warmup_proportion=named.warmup_proportion, use_ema=False)
        return first, self


@dataclass(frozen=True)
class JobSettings(FlagGroup, title="training"):
    """What a training does beside learning: its files, its checkpoints, its devices."""

    do_train: bool = flag(True, "train")
    do_predict: bool = flag(False, "evaluate when the training is done")
    train_file: Path = flag(derive=lambda settings: settings.data.folder.dataset_json(settings.task, "train"), help=(
        "data set for training, JSON [{task.folder}/{task.json_files[train]}]"))
    train_mindrecord_file: Path = flag(derive=lambda settings: settings.data.folder.mindrecord(settings.task, "train"),
                                       help="features for training, made from train_file if absent; several "
                                            "files are separated by commas, or a pattern as "
                                            "train.*-of-4.mindrecord [{task.folder}/train.mindrecord]")
    load_pretrain_checkpoint_path: Path = flag(
        derive=lambda settings: settings.data.folder.bert() / "roberta.ckpt", aliases=["init_pretraining_params"],
        help="pretrained encoder, from src/bert_ms_format.py [cased_L-24_H-1024_A-16/roberta.ckpt]")
    init_checkpoint: Path | None = flag(None, "KT-NET checkpoint to start from (the second stage starts from the "
                                              "frozen first)")
    load_checkpoint_path: Path | None = flag(None, "KT-NET checkpoint that is evaluated with --do_train False "
                                                   "--do_predict True [init_checkpoint]")
    do_val: bool = flag(False, "evaluate after every epoch and keep the best checkpoint as KTNET_*-best.ckpt")
    resume: bool = flag(False, "continue the training in the checkpoint folder, if there is one")
    force_memory: bool = flag(False, "train even if the estimate of memory exceeds what is there")
    save_epochs: PositiveInt = flag(1, "epochs between checkpoints; a stage's last epoch is saved in any case")
    save_steps: PositiveInt | None = flag(None, "steps between further checkpoints [none]")
    keep_checkpoint_max: PositiveInt = flag(3, "checkpoints that are kept")
    checkpoint_format: Literal["ckpt", "safetensors"] = flag("ckpt", "of the checkpoints: MindSpore's, or safetensors; "
                                                                     "both are read everywhere")
    log_steps: PositiveInt | None = flag(None, "steps between two log lines [a hundredth of the training, at most 50]; "
                                               "in a terminal a bar shows every step")
    tensorboard: bool = flag(False, "also write scalars for TensorBoard, into tensorboard_{task.name} below "
                                    "--checkpoints (requirements-tensorboard.txt)")
    save_finetune_checkpoint_path: Path = flag(
        derive=lambda settings: settings.run.checkpoints / "finetune_checkpoint",
        help="folder of the checkpoints [finetune_checkpoint below --checkpoints]")
    convert_only: bool = flag(False, "convert the features that are missing, then end")
    is_distribute: bool = flag(False, "data parallel over several devices")
    device_num: PositiveInt = flag(1, "devices of a distributed run; checked against what was started")


@dataclass(frozen=True)
class DecodingSettings(FlagGroup, title="evaluation"):
    """From logits to answers."""

    n_best_size: PositiveInt = flag(20, "answers kept for a question")
    max_answer_length: PositiveInt = flag(30, "word pieces of an answer")
    null_score_diff_threshold: float = flag(0.0, "SQuAD 2.0: no answer when its score beats the best answer's by more "
                                                 "than this")
    save_logits: Path | None = flag(None, "also write unique_id, start_logits, end_logits", metavar="PATH.npz")

    def choices(self) -> dict[str, Any]:
        """As arguments of :class:`src.reader.decoding.DecodingOptions`."""
        return {"n_best_size": self.n_best_size, "max_answer_length": self.max_answer_length,
                "null_score_diff_threshold": self.null_score_diff_threshold}


@dataclass(frozen=True)
class CheckpointSettings(FlagGroup, title="checkpoint"):
    """Which checkpoint is taken, and which of its weights."""

    load_checkpoint_path: Path = flag(aliases=["model"], help="KT-NET checkpoint, model folder of export.py, or name "
                                                              "of one on the HuggingFace hub")
    use_ema: bool = flag(True, "evaluate the moving average of the weights where the checkpoint has one")


@dataclass(frozen=True)
class ModelArtsSettings(FlagGroup, title="ModelArts"):
    """Huawei ModelArts: data comes in and results go out through moxing."""

    is_modelarts: bool = flag(False, "run as a ModelArts job: --data_url is copied from object storage first")
    save_url: str | None = flag(None, "where ModelArts wants the results", aliases=["train_url"])
    log_url: str | None = flag(None, "where ModelArts wants the logs")


# --- settings of scripts that have the network ------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class NetworkRunSettings(Settings):
    """What every script has that runs the network on text."""

    device: NetworkDeviceSettings = group()
    data: DataSettings = group()
    features: FeatureSettings = group(AS_CONVERTED)
    network: NetworkSettings = group(AS_CHECKPOINT)
    decoding: DecodingSettings = group()

    def on_device(self: N, target: str) -> N:
        """The same on the device that was chosen, with a compute type in the place of ``auto``.

        Call this before anything is computed. Raises InputError where the device has no use for the type.
        """
        return self.with_flags(device_target=target, compute_type=choose_compute_type(target, self.device.compute_type))

    def wanted_bases(self) -> tuple[KnowledgeBase, ...]:
        """The knowledge bases that --kb_config, --use_wordnet and --use_nell leave."""
        unused = unused_bases(self.network.use_wordnet, self.network.use_nell)
        return tuple(base for base in self.data.bases() if base.name not in unused)

    def vectors(self, base: KnowledgeBase, task: TaskConfig) -> Path:
        """The concept vectors of a knowledge base for the network."""
        given = {"wn": self.network.wn_concept_embedding_path, "nell": self.network.nell_concept_embedding_path}
        return given.get(base.name) or self.data.folder.table(base, task)


def unused_bases(use_wordnet: bool, use_nell: bool) -> frozenset[str]:
    """Names of the knowledge bases that are switched off."""
    return frozenset(name for name, used in (("wn", use_wordnet), ("nell", use_nell)) if not used)


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(NetworkRunSettings):
    """Flags of run_KTNET_{squad,record}_eval.py."""

    prog: ClassVar[str] = "run_KTNET_{task.name}_eval.py"
    description: ClassVar[str] = "Evaluate KT-NET on {task.folder}."
    examples: ClassVar[tuple[str, ...]] = (
        "--data_url ./data --load_checkpoint_path output/finetune_checkpoint/KTNET_{task.name}-3_100.ckpt",
        "--data_url ./data --load_checkpoint_path KTNET_{task.name}.ckpt --checkpoints output/eval --batch_size 32")
    no_effect: ClassVar = {
        JobSettings: ("do_train", "do_predict", "train_file", "train_mindrecord_file", "load_pretrain_checkpoint_path",
                      "save_steps", "save_finetune_checkpoint_path"),
        Recipe: ("freeze", "weight_decay", "warmup_proportion", "learning_rate", "epoch", "random_seed")}

    task: TaskConfig
    run: RunSettings = group()
    checkpoint: CheckpointSettings = group()
    modelarts: ModelArtsSettings = group()

    def json_path(self, split: str) -> Path:
        """The data set's file."""
        assert split == "dev"
        return self.run.predict_file

    def mindrecord(self, split: str) -> Path:
        """The converted features."""
        assert split == "dev"
        return self.run.predict_mindrecord_file


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(NetworkRunSettings):
    """Flags of run_KTNET_{squad,record}.py."""

    prog: ClassVar[str] = "run_KTNET_{task.name}.py"
    description: ClassVar[str] = "Train KT-NET on {task.folder}."
    examples: ClassVar[tuple[str, ...]] = (
        "--data_url ./data --device_target CPU",
        "--data_url ./data --config config/{task.name}_authors.yaml --resume True")

    task: TaskConfig
    network: NetworkSettings = group()
    run: RunSettings = group()
    job: JobSettings = group()
    recipe: Recipe = group()
    modelarts: ModelArtsSettings = group()

    def json_path(self, split: str) -> Path:
        """The data set's file of a split."""
        return self.job.train_file if split == "train" else self.run.predict_file

    def mindrecord(self, split: str) -> Path:
        """The converted features of a split."""
        return self.job.train_mindrecord_file if split == "train" else self.run.predict_mindrecord_file

    def evaluation(self, checkpoint: Path) -> EvaluationSettings:
        """The evaluation of a checkpoint with the same flags."""
        return EvaluationSettings(
            task=self.task, given=self.given, device=self.device, data=self.data, features=self.features,
            network=self.network, decoding=self.decoding, run=self.run, modelarts=self.modelarts,
            checkpoint=CheckpointSettings(load_checkpoint_path=checkpoint, use_ema=self.recipe.use_ema))


@dataclass(frozen=True)
class QuestionSettings(FlagGroup, title="question"):
    """What predict.py is asked, and how it answers."""

    passage: str | None = flag(None, "the text that holds the answers")
    passage_file: Path | None = flag(None, "a text file with the passage")
    question: tuple[str, ...] = flag((), "may be given several times; left out, questions are read from standard "
                                         "input, one per line")
    dataset: DatasetName | None = flag(None, "what the checkpoint was trained on; record prefers answers that are "
                                             "entities [as the checkpoint says, else squad]")
    json: OnOff = flag(False, "one line of JSON per question")
    whole_words: bool = flag(True, "widen answers that end inside a word; evaluation never does")
    html: Path | None = flag(None, "also write a page that shows the knowledge behind every word")
    compare: OnOff = flag(False, "also answer with each memory switched off, and with all of them")
    serve: NonNegativeInt | None = flag(None, "answer at http://127.0.0.1:PORT/, as a page and as JSON; 0 takes any "
                                              "free port", metavar="PORT")

    @property
    def wants_attention(self) -> bool:
        """Whether the network must tell what its memories attended to."""
        return self.html is not None or self.serve is not None

    @property
    def task(self) -> TaskConfig:
        """What the checkpoint was trained on."""
        return SQUAD if self.dataset is None else TASKS[self.dataset]


@dataclass(frozen=True)
class LiveKnowledgeSettings(FlagGroup, title="knowledge"):
    """Where knowledge for new text comes from."""

    wordnet_path: Path | None = flag(None, WORDNET_HELP)
    ner: Literal["spacy", "corenlp", "none"] = flag("spacy", "finder of named entities")
    corenlp_url: str = flag(CORENLP_URL, "address of the CoreNLP server")


@dataclass(frozen=True)
class PageSettings(FlagGroup, title="evaluation page"):
    """The page of a whole evaluation."""

    evaluation: Path | None = flag(None, "results of run_KTNET_*_eval.py: --html shows its questions in place of one "
                                         "passage", metavar="FOLDER")
    predict_mindrecord_file: Path = flag(
        derive=lambda settings: settings.data.folder.mindrecord(settings.question.task, "dev"),
        help="the features that were evaluated [SQuAD/dev.mindrecord or ReCoRD/dev.mindrecord]")
    page_questions: PositiveInt = flag(500, "most questions of the page")


@dataclass(frozen=True, kw_only=True)
class PredictionSettings(NetworkRunSettings):
    """Flags of predict.py."""

    prog: ClassVar[str] = "predict.py"
    description: ClassVar[str] = "Answer questions about a passage of your own."
    examples: ClassVar[tuple[str, ...]] = (
        '--data_url ./data --load_checkpoint_path KTNET_squad.ckpt --passage_file tower.txt --question "Who built it?"',
        "--data_url ./data --load_checkpoint_path KTNET_squad.ckpt --evaluation output/eval --html page.html")

    features: FeatureSettings = group(dict.fromkeys(AS_CONVERTED, "as the checkpoint's features were converted"))
    question: QuestionSettings = group()
    knowledge: LiveKnowledgeSettings = group()
    page: PageSettings = group()
    checkpoint: CheckpointSettings = group()


# --- settings of the other scripts ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ConversionSelection(FlagGroup, title="conversion"):
    """What data_convert.py converts."""

    dataset: DatasetName | Literal["all"] = flag("all", "which data set")
    split: Literal["train", "dev", "all"] = flag("all", "which split")
    num_workers: PositiveInt | None = flag(None, "more than 1 builds the features in a process beside the one that "
                                                  "writes them [number of cores]")
    shard: ShardOf | None = flag(None, SHARD_HELP, metavar="I/N")
    force: OnOff = flag(False, "convert even what is up to date")


@dataclass(frozen=True, kw_only=True)
class ConversionSettings(Settings):
    """Flags of data_convert.py."""

    prog: ClassVar[str] = "data_convert.py"
    description: ClassVar[str] = ("Convert SQuAD and ReCoRD, with what the knowledge bases say about them, into "
                                  "MindRecord files.")
    examples: ClassVar[tuple[str, ...]] = (
        "--data_url ./data",
        "--data_url ./data --dataset squad --split dev --vocab_path vocab.txt --do_lower_case True")

    data: DataSettings = group()
    features: FeatureSettings = group()
    conversion: ConversionSelection = group()


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings(Settings):
    """Flags of retrieve.py."""

    prog: ClassVar[str] = "retrieve.py"
    description: ClassVar[str] = "Retrieve knowledge for the data sets of a data folder."
    examples: ClassVar[tuple[str, ...]] = (
        "--data_url ./data",
        "--data_url ./data --dataset squad --step wordnet")

    data_url: Path = flag(Path("./data"), "data folder")
    dataset: DatasetName | Literal["all"] = flag("all", "which data set")
    step: Literal["entities", "tokens", "wordnet", "nell", "own", "all"] = flag(
        "all", "which step; all makes everything but token files, which are optional")
    shard: ShardOf | None = flag(None, SHARD_HELP, metavar="I/N")
    force: OnOff = flag(False, "make files again even if they are up to date")
    format: Literal["json", "pickle"] = flag("json", "of the files that are made: JSON lines, or the authors' pickles")
    ner: Literal["spacy", "corenlp"] = flag("spacy", "finder of SQuAD's named entities")
    ner_processes: PositiveInt = flag(1, "processes that spaCy works in")
    corenlp_url: str = flag(CORENLP_URL, "address of the CoreNLP server")
    vocab_path: Path | None = flag(None, "cased vocabulary [cased_L-24_H-1024_A-16/vocab.txt]")
    uncased_vocab_path: Path | None = flag(None, "uncased vocabulary [uncased_L-24_H-1024_A-16/vocab.txt, if it is "
                                                 "there]")
    nell_beliefs: Path | None = flag(None, "NELL's belief export, .csv or .csv.gz [NELL.*.esv.csv* in the data folder "
                                           "or its folder raw]")
    kb_config: Path | None = flag(None, "JSON list of knowledge bases; the step own serves those that are not WordNet "
                                        "or NELL (see docs/knowledge.md) [knowledge_bases.json if it is there]")
    wordnet_path: Path | None = flag(None, WORDNET_HELP)


@dataclass(frozen=True)
class ExportFileSettings(FlagGroup, title="export"):
    """What the exported file is."""

    dataset: DatasetName | None = flag(None, "data set of the checkpoint; names the file [as the checkpoint says]")
    file_format: Literal["MINDIR", "ONNX", "AIR", "FOLDER"] = flag(
        "MINDIR", "AIR is written on Ascend alone; FOLDER is a model folder for predict.py --model")
    file_path: Path = flag(Path("./mindir"), "folder of the file")
    file_name: str | None = flag(None, "name of the file, without its ending [KTNET_squad or KTNET_record]")
    batch_size: PositiveInt = flag(1, "questions of one inference; the inference harness takes 1")
    max_seq_len: PositiveInt | None = flag(None, "word pieces of a feature [as the checkpoint]")
    bert_config_path: Path = flag(derive=lambda settings: settings.data.folder.bert() / BERT_CONFIG, help=(
        "sizes of the encoder, for a checkpoint of the older port that has none beside it "
        "[cased_L-24_H-1024_A-16/bert_config.json]"))


@dataclass(frozen=True)
class ModelFolderSettings(FlagGroup, title="model folder (--file_format FOLDER)"):
    """What goes into a model folder beside the network."""

    export_path: Path | None = flag(None, "folder to write; it must be new")
    wordnet_path: Path | None = flag(None, WORDNET_HELP)
    evaluation: Path | None = flag(None, "results of run_KTNET_*_eval.py; their figures go into the model card",
                                   metavar="FOLDER")


@dataclass(frozen=True, kw_only=True)
class ExportSettings(Settings):
    """Flags of export.py."""

    prog: ClassVar[str] = "export.py"
    description: ClassVar[str] = "Export a KT-NET checkpoint for inference elsewhere."
    examples: ClassVar[tuple[str, ...]] = (
        "--dataset squad --load_checkpoint_path KTNET_squad.ckpt",
        "--dataset record --load_checkpoint_path KTNET_record.ckpt --file_format ONNX --file_path exported")

    device: DeviceSettings = group()
    data: DataSettings = group()
    checkpoint: CheckpointSettings = group(aliases={"load_checkpoint_path": "ckpt_file"})
    file: ExportFileSettings = group()
    folder: ModelFolderSettings = group()


@dataclass(frozen=True)
class HarnessSettings(FlagGroup, title="inference harness"):
    """What preprocess.py and postprocess.py share."""

    dataset: DatasetName = flag(help="which data set")
    data_url: Path = flag(Path("./data"), "data folder")
    predict_mindrecord_file: Path = flag(
        derive=lambda settings: DataFolder(settings.harness.data_url).mindrecord(settings.harness.task, "dev"),
        help="converted dev features [SQuAD/dev.mindrecord or ReCoRD/dev.mindrecord below --data_url]")
    preprocess_path: Path = flag(Path("./preprocess_result"), "folder of the network's inputs as raw files")
    model_path: Path | None = flag(None, "the exported network; features that it was not made for are then refused")

    @property
    def task(self) -> TaskConfig:
        """The data set."""
        return TASKS[self.dataset]

    @property
    def inputs(self) -> Path:
        """The folder of the inputs; the older port's --label_dir named one of the folders in it, 06_data."""
        is_label_folder = LABEL_FOLDER.fullmatch(self.preprocess_path.name)
        return self.preprocess_path.parent if is_label_folder else self.preprocess_path


@dataclass(frozen=True)
class MemorySelection(FlagGroup, title="network"):
    """Which memories an exported network has."""

    use_wordnet: bool = flag(True, "the exported network reads WordNet")
    use_nell: bool = flag(True, "the exported network reads NELL")


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings(Settings):
    """Flags of preprocess.py."""

    prog: ClassVar[str] = "preprocess.py"
    description: ClassVar[str] = "Write dev features as raw files for the 310 harness."
    examples: ClassVar[tuple[str, ...]] = (
        "--dataset squad --data_url ./data",
        "--dataset record --predict_mindrecord_file dev.mindrecord --preprocess_path preprocess_result")

    harness: HarnessSettings = group(aliases={"predict_mindrecord_file": "eval_data_file_path",
                                              "preprocess_path": "result_path"})
    memories: MemorySelection = group()


@dataclass(frozen=True)
class ResultSettings(FlagGroup, title="results"):
    """The harness's results, and where the answers go."""

    result_path: Path = flag(Path("./result_files"), "folder of the harness's results")
    output_path: Path = flag(Path("./output"), "folder for predictions.json and the other results")
    ignore_padding: bool = flag(False, "choose the n best among word pieces only, as evaluation does, and not as "
                                       "BERT's SQuAD code among all positions")


@dataclass(frozen=True, kw_only=True)
class PostprocessSettings(Settings):
    """Flags of postprocess.py."""

    prog: ClassVar[str] = "postprocess.py"
    description: ClassVar[str] = "Turn the 310 harness's results into answers."
    examples: ClassVar[tuple[str, ...]] = (
        "--dataset squad --data_url ./data",
        "--dataset record --predict_mindrecord_file dev.mindrecord --result_path result_files --output_path output")

    harness: HarnessSettings = group(aliases={"preprocess_path": "label_dir"})
    decoding: DecodingSettings = group()
    results: ResultSettings = group(aliases={"result_path": "result_dir"})


@dataclass(frozen=True)
class EmbeddingRecipe(FlagGroup, title="training"):
    """How concept vectors are trained."""

    width: PositiveInt = flag(100, "D: numbers in a vector")
    epoch: PositiveInt = flag(12, "passes over the triples")
    batch_size: PositiveInt = flag(2000, "B: questions in a step")
    negatives: PositiveInt = flag(2000, "N: random entities in a step, beside the tails of its other questions")
    learning_rate: NonNegativeFloat = flag(0.1, "of Adagrad")
    regularization: NonNegativeFloat = flag(0.0, "weight of the sum of |x|^3 over the vectors of a triple (N3)")
    random_seed: NonNegativeInt = flag(45, "seed")


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings(Settings):
    """Flags of train_kb_embedding.py."""

    prog: ClassVar[str] = "train_kb_embedding.py"
    description: ClassVar[str] = "Train concept vectors from the triples of a knowledge graph."
    examples: ClassVar[tuple[str, ...]] = (
        "--triples ./data/WN18 --output ./data/KB_embeddings/wn_concept2vec.txt",
        "--data_url ./data --output wn_concept2vec.txt --epoch 20")

    device: DeviceSettings = group(device_target="CPU")
    data_url: Path = flag(Path("./data"), "data folder, for WordNet")
    triples: Path | None = flag(None, "folder with train.txt, test.txt and valid.txt (the last two need not be there) "
                                      "[WordNet's own relations, none held out]")
    judge_by: Literal["test", "valid"] = flag("test", "held-out triples to rank at the end; choose hyper-parameters "
                                                      "by those of valid.txt")
    output: Path = flag(help="vectors file to write")
    recipe: EmbeddingRecipe = group()


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(Settings):
    """Flags of src/bert_ms_format.py."""

    prog: ClassVar[str] = "src/bert_ms_format.py"
    description: ClassVar[str] = "Turn a BERT encoder, or a KT-NET of the authors, into a MindSpore checkpoint."
    examples: ClassVar[tuple[str, ...]] = (
        "--data_url ./data",
        "--source bert-base-cased --output ./data/cased_L-24_H-1024_A-16/roberta.ckpt")

    data_url: Path = flag(Path("./data"), "data folder")
    source: Path = flag(derive=lambda settings: DataFolder(settings.data_url).bert(), help=(
        "folder of the encoder or of the authors' trained network, or a checkpoint of MindSpore's BERT "
        "[cased_L-24_H-1024_A-16 in --data_url]"))
    output: Path | None = flag(None, "checkpoint to write [cased_L-24_H-1024_A-16/roberta.ckpt in --data_url; for a "
                                     "KT-NET KTNET_{dataset}_authors.ckpt there]")
    reader: Literal["builtin", "paddle"] = flag("builtin", "what reads PaddlePaddle's files: our own reader, or "
                                                           "PaddlePaddle itself (requirements-paddle.txt)")
    dataset: DatasetName | None = flag(None, "what a KT-NET of the authors was trained on [as its folder's name says]")
