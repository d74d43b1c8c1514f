"""What neighbouring tools call things: where a job has them, or that it has none."""

from __future__ import annotations

from drillcore.system.nearly import fold

_DTYPE = "the type that the model computes in is `extract.dtype` (auto, float32, bfloat16 or float16)"
_LENGTH = (
    "a sentence may be as long as the model's context; `extract.too_long` (error or truncate) says what becomes of a "
    "longer one"
)
_BATCH = "tokens of one forward pass are `extract.batch_tokens`; `auto` finds them"
_DEVICE = "the device is `extract.device` (auto, cpu, cuda or cuda:N)"
_SHARDED = (
    "devices that share one model are `extract.tensor_parallel`; `run.executor: ray` gives every device "
    "a model of its own"
)
_MODELS = "models are listed under `models:`, such as `models: [org/name]`"
_DATASETS = "files of sentences are listed under `datasets:`, such as `datasets: [texts.csv]`"
_TEXT = "the field of the sentence is `text:` of a dataset"
_LABEL = "the field of the labels is `label:` of a dataset"
_STORE = "where the states go is `store:`; pictures and the report lie beside it"
_LAYERS = "layers are `extract.layers` (all, hf, or a list of numbers)"
_POSITIONS = "which tokens' states are taken is `extract.positions` (last, mean, all, turns, ...)"
_WORKERS = "there is no number of workers: one process uses `extract.threads`, `run.executor: ray` uses many machines"
_QUANTISED = "weights are quantised on loading by `quantization:` of a model, such as bitsandbytes-8bit"
_CODE = "code that a model ships is allowed by `trust_remote_code: true` of the model"
_PERPLEXITY = "there is no t-SNE: `project.method` is umap or pca"
_HALF = "states are stored in `extract.store_dtype` (float32 or float16)"
_TEMPLATE = (
    "text around a sentence is `template:` of a dataset, holding {text} or {{ fields }}; `chat` is the model's own"
)

MEANINGS: dict[str, tuple[str, ...]] = {
    _DTYPE: ("precision", "fp16", "bf16", "fp32", "torch_dtype", "half", "compute_dtype", "amp", "autocast"),
    _LENGTH: (
        *("max_length", "max_len", "max_seq_len", "max_seq_length", "max_model_len", "max_tokens", "truncation"),
        *("truncate", "context_length", "model_max_length"),
    ),
    _BATCH: (
        *("batch_size", "batch", "per_device_batch_size", "per_device_eval_batch_size", "eval_batch_size"),
        *("max_num_batched_tokens", "max_batch_size", "micro_batch_size"),
    ),
    _DEVICE: ("device_id", "cuda", "gpu", "use_gpu", "use_cuda", "no_cuda", "gpu_id", "accelerator"),
    _SHARDED: (
        *("n_gpus", "num_gpus", "ngpus", "gpus", "tensor_parallel_size", "tp", "world_size", "devices", "tp_plan"),
        *("tp_size", "distributed_config"),
    ),
    _MODELS: (
        *("model", "model_name", "model_id", "model_path", "model_name_or_path", "pretrained"),
        *("pretrained_model_name_or_path", "checkpoint", "model_args"),
    ),
    _DATASETS: (
        *("dataset", "data", "file", "files", "input", "inputs", "texts", "data_path", "dataset_path", "input_file"),
        *("data_files", "corpus", "sentences", "dataset_name", "input_path", "train_file"),
    ),
    _TEXT: ("text_column", "column", "sentence", "text_field", "sentence_column", "text_key", "prompt_column"),
    _LABEL: ("label_column", "target", "y", "labels", "label_field", "label_key", "target_column", "class"),
    _STORE: ("output", "output_dir", "out", "out_dir", "save_to", "save_dir", "output_path", "results", "path_out"),
    _LAYERS: ("layer", "hidden_layers", "output_hidden_states", "layer_idx", "layer_index", "num_layers"),
    _POSITIONS: ("pooling", "pool", "pooling_mode", "token_position", "strategy", "position", "tokens", "aggregation"),
    "seeds are `measure.seed` and `project.seed`; extraction draws nothing": ("seed", "random_seed", "random_state"),
    "projections have two dimensions": ("n_components", "dimensions", "dim", "n_dims"),
    _PERPLEXITY: ("perplexity", "tsne", "learning_rate", "early_exaggeration"),
    "colours are by the coordinate that `render.color` names": ("hue", "colour", "c", "color_by", "palette", "cmap"),
    _WORKERS: ("workers", "num_workers", "n_jobs", "num_proc", "processes", "dataloader_num_workers"),
    _QUANTISED: ("quantize", "quantisation", "quantise", "load_in_8bit", "load_in_4bit", "bits", "quantization_config"),
    _CODE: ("remote_code", "allow_remote_code"),
    _HALF: ("save_dtype", "output_dtype"),
    _TEMPLATE: ("prompt", "prompt_template", "chat_template", "instruction", "prefix", "format"),
    "a conversation is a field that `messages:` of a dataset names": ("conversation", "conversations", "chats"),
    "the first sentences alone are `limit:` of a dataset, or --limit on the command line": (
        *("max_samples", "n_samples", "num_samples", "max_examples", "nrows", "head", "subset"),
    ),
    "the column that says train or test is `split:` of a dataset; an hf:// path names its own split": (
        *("split", "splits", "train", "test", "validation", "config_name"),
    ),
    "what is between the fields of a .csv file is `delimiter:` of a dataset": ("sep", "separator", "delim"),
    "the encoding of a text file is `encoding:` of a dataset": ("encoding", "charset"),
    "the id of a model is its only required field, `id`": ("repo", "repo_id", "hub_id", "model_repo"),
    "a gated or private model is read with HF_TOKEN of the environment": ("token", "hf_token", "use_auth_token"),
    "nothing is drawn at random when states are taken": ("temperature", "top_p", "top_k", "do_sample"),
    "nothing is generated: states of the sentences themselves are taken": ("max_new_tokens", "generate", "generation"),
    "caches are where XDG_CACHE_HOME and HF_HOME of the environment say": ("cache_dir", "cache", "hf_home"),
    "--overwrite is an option of the command line, not a field": ("overwrite", "force", "resume"),
}
_BY_NAME = {name: said for said, names in MEANINGS.items() for name in names}


def meaning(name: str) -> str:
    """What a name of a neighbouring tool is here, in words; empty where no such name is known.

    >>> meaning("Torch-Dtype")[:30]
    'the type that the model comput'
    """
    return _BY_NAME.get(fold(name).replace("-", "_").replace(" ", "_"), "")
