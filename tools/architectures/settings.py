"""Sizes and settings that make every architecture tiny, its quirks kept: windows, experts, latent attention, hybrids.

A size holds wherever a configuration, or one inside it, has a field of that name. An architecture's settings come after
the sizes; a `Whole` replaces a dictionary that it would be merged into otherwise.
"""

from __future__ import annotations

from typing import Any

VOCAB = 384
NUM_LAYERS = 4


class Whole(dict[str, Any]):
    """A dictionary that replaces the one of the configuration."""


NUM_LAYERS_NAMES = (
    "num_hidden_layers num_layers n_layer n_layers num_blocks num_hidden_blocks depth layers "
    "encoder_layers decoder_layers num_encoder_layers num_decoder_layers"
)
# Names with `vocab` that are no vocabulary of tokens.
OTHER_VOCABULARIES = ("type_vocab_size", "task_type_vocab_size")

SIZES: dict[int, str] = {
    0: "num_kv_shared_layers num_nextn_predict_layers",
    1: "first_k_dense_replace n_group n_shared_experts topk_group",
    2: (
        "conf_num_hidden_layers index_n_heads kv_n_heads linear_num_key_heads max_window_layers moe_k moe_top_k "
        "moe_topk n_mamba_heads num_experts_per_tok num_global_key_value_heads num_key_value_heads num_kv_heads "
        "num_layers_per_stack o_groups swa_num_key_value_heads zero_expert_num"
    ),
    3: "num_channels",
    4: (
        "altup_num_inputs attention_heads conf_num_attention_heads decoder_attention_heads "
        "encoder_attention_heads linear_num_heads linear_num_value_heads mamba_n_heads mamba_num_heads "
        "moe_num_experts n_head n_heads n_routed_experts num_attention_heads num_codebooks "
        "num_decoder_attention_heads num_encoder_attention_heads num_experts num_heads num_local_experts "
        "num_quantizers num_query_groups swa_num_attention_heads"
    ),
    8: (
        "adapter_rank chunk_size d_rel gated_norm_rank hc_lowrank laurel_rank make_ngram_vocab_size_divisible_by "
        "mamba_chunk_size mamba_dt_rank qk_rope_head_dim relative_attention_num_buckets rotary_dim "
        "split_ngram_parts time_step_rank"
    ),
    12: "scale_emb",
    16: (
        "attention_chunk_size attention_head_dim attention_head_size attention_window_size codebook_dim d_head "
        "d_kv dim_head dim_model_base global_head_dim head_dim hidden_size_per_layer_input index_head_dim "
        "kv_lora_rank linear_head_dim linear_key_head_dim linear_value_head_dim local_attention "
        "local_attention_window_len mamba_d_state mamba_head_dim o_lora_rank pronunciation_embed_dim "
        "qk_nope_head_dim query_pre_attn_scalar router_hidden_size shape_embed_dim sliding_window "
        "sliding_window_size ssm_state_size state_size swa_head_dim v_head_dim "
        "vector_quantization_hidden_dimension window_size"
    ),
    24: "q_lora_rank qk_head_dim",
    32: (
        "expert_ffn_hidden_size image_size input_embedding_size mamba_d_head mamba_headdim moe_intermediate_size "
        "moe_shared_expert_intermediate_size ple_embed_dim prompt_mid_dim rel_extent "
        "relative_attention_max_distance shared_expert_intermediate_size shared_intermediate_size"
    ),
    48: "output_embedding_size",
    64: (
        "attention_hidden_size audio_vocab_size backbone_hidden_size codebook_size cross_attention_hidden_size "
        "d_model dim emb_dim embed_dim embedding_dim embedding_size encoder_hidden_size hidden_size lru_width "
        "max_source_positions n_embd num_position_embeddings out_hidden_size projection_dim projector_hidden_size "
        "text_hidden_size word_embed_proj_dim"
    ),
    96: (
        "d_ff d_inner decoder_ffn_dim dense_intermediate_size dff dim_ff encoder_ffn_dim feed_forward_size "
        "ffn_dim ffn_hidden_size intermediate_size intermediate_size_mlp mlp_dim n_inner"
    ),
    # Sparse attention takes so many keys: all of them, as it does in real models up to thousands of tokens.
    128: "index_topk mamba_d_ssm",
    300: "encoder_hash_byte_group_vocab",
    384: "vocab_size_per_layer_input",
    400: "ngram_vocab_size_base",
    512: "context_length max_position_embeddings max_seq_len max_target_positions n_ctx n_positions",
}

SETTINGS: dict[str, dict[str, Any]] = {
    "dots3_note_text": {
        "head_dim": 24,
        "num_key_value_heads": 4,
        "per_layer_config": Whole({"01": {"head_dim": 24}}),
        "layer_types": ["indexed_attention", "sliding_attention", "indexed_attention", "sliding_attention"],
    },
    "axk2": {"head_dim": 8, "num_key_value_heads": 4, "qk_rope_head_dim": 8, "index_head_dim": 16},
    "bailing_hybrid": {
        "head_dim": 8,
        "num_key_value_heads": 4,
        "n_group": 2,
        "num_expert_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "num_experts_per_token": 2,
    },
    "deepseek_v2": {
        "head_dim": 8,
        "num_key_value_heads": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "topk_method": "greedy",
    },
    "kimi_linear": {"head_dim": 8, "num_key_value_heads": 4, "num_experts_per_token": 2, "num_experts_per_tok": 2},
    "longcat_flash": {"head_dim": 8, "num_key_value_heads": 4, "zero_expert_num": 2},
    "mistral4": {"head_dim": 16, "num_key_value_heads": 4},
    "glm5_next": {"text_config": {"head_dim": 8, "num_key_value_heads": 4, "index_kpool": 4, "qk_rope_head_dim": 0}},
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    },
    "cohere_compass": {
        "text_config": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}}
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "num_key_value_heads": 2},
    "dots1": {
        "n_routed_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "num_key_value_heads": 2,
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma4_text": {
        "per_layer_config": Whole({"01": {"head_dim": 32}, "03": {"head_dim": 32}}),
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "num_kv_shared_layers": 1,
    },
    "gemma4_unified_text": {
        "per_layer_config": Whole({"03": {"head_dim": 32}}),
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    },
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "per_layer_config": Whole({"03": {"head_dim": 32}}),
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "num_kv_shared_layers": 4,
        }
    },
    "gemma4_unified_assistant": {
        "text_config": {
            "per_layer_config": Whole({"03": {"head_dim": 32}}),
            "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "num_kv_shared_layers": 4,
        }
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "intermediate_size": [96, 96, 96, 96],
    },
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "hunyuan_vl": {"text_config": {"head_dim": 16, "rope_parameters": {"mrope_section": [2, 2, 2, 2]}}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"head_dim": 32, "num_heads": 4, "n_groups": 2},
    "nemotron_h": {"n_groups": 2, "mamba_head_dim": 32, "mtp_layers_block_type": ["full_attention", "moe"]},
    "nemotron_h_omni": {"text_config": {"n_groups": 2, "mamba_head_dim": 32}},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "layer_types": ["linear_attention", "indexed_attention", "linear_attention", "indexed_attention"],
    },
    "reformer": {
        "is_decoder": True,
        "axial_pos_shape": [16, 32],
        "axial_pos_embds_dim": [16, 48],
        "attn_layers": ["local", "lsh", "local", "lsh"],
        "hash_seed": 0,
        "num_buckets": 4,
    },
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "n_mamba_heads": 2,
        "num_key_value_heads": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zamba2": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "n_mamba_heads": 4,
        "mamba_headdim": 32,
        "num_key_value_heads": 4,
        "kv_channels": 16,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "num_query_groups": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
    "emu3": {
        "vocabulary_map": {
            "<image>": 331,
            "<|extra_200|>": 340,
            "<|visual token 000000|>": 341,
            "<|visual token 000001|>": 342,
        }
    },
    "chameleon": {
        "vocabulary_map": {
            "<image>": 331,
            "IMGIMGAZ": 332,
            "IMGIMGBZ": 333,
            "IMGIMGCZ": 334,
            "IMGIMGDZ": 335,
            "IMGIMGEZ": 336,
            "IMGIMGFZ": 337,
            "IMGIMGGZ": 338,
            "IMGIMGHZ": 339,
            "IMGIMGIZ": 340,
            "IMGIMGJZ": 341,
        }
    },
    "glm4v_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}, "head_dim": 16}},
    "deepseek_ocr2": {
        "text_config": {"num_experts_per_tok": 2, "mlp_layer_types": ["dense", "sparse", "dense", "sparse"]}
    },
    "granite4_vision": {
        "deepstack_layer_map": [[-1, 0]],
        "spatial_target_layers": [1],
        "use_spatial_sampling": False,
        "downsample_rate": "1/2",
    },
    "molmo2": {"adapter_config": {"vision_feature_layers": [3, 2], "vision_feature_layer": [3, 2]}},
    "step3p7": {"text_config": {"sliding_window": 16}},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 2]],
        "attention_layers": ["global", "local", "global", "local"],
    },
    "mllama": {"text_config": {"cross_attention_layers": [1]}},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 3},
    "big_bird": {"is_decoder": True, "attention_type": "original_full"},
    "llama4_text": {
        "attention_chunk_size": 16,
        "layer_types": ["chunked_attention", "full_attention", "chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0, 1, 0],
    },
    "blt": {"encoder_config": {"hidden_size_global": 64}, "decoder_config": {"hidden_size_global": 64}},
    "aria": {"projector_patch_to_query_dict": {1225: 128, 4900: 256}},
}

for _kinds, _settings in (
    (
        "axk1 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa minicpm3 youtu",
        {"head_dim": 8, "num_key_value_heads": 4},
    ),
    ("mistral_large4 kimi_k25", {"text_config": {"head_dim": 8, "num_key_value_heads": 4}}),
    ("hunyuan_v1_dense hunyuan_v1_moe ministral", {"head_dim": 16}),
    ("cosmos3_edge ernie4_5_vl_moe", {"text_config": {"rope_parameters": {"mrope_section": [3, 3, 2]}}}),
    (
        "glm46v glm4v glm_ocr glmga paddleocr_vl qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_vl",
        {"text_config": {"rope_parameters": {"mrope_section": [2, 3, 3]}}},
    ),
    (
        "bert bert-generation camembert data2vec-text electra ernie megatron-bert rembert roberta "
        "roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl",
        {"is_decoder": True},
    ),
):
    SETTINGS |= dict.fromkeys(_kinds.split(), _settings)
# Models of images and text, with the settings of their text.
for _kind in ("dots3_note", "gemma4", "gemma4_unified", "llama4", "qwen4_exp"):
    SETTINGS[_kind] = {"text_config": SETTINGS[f"{_kind}_text"]}
SETTINGS["diffusion_gemma"] = SETTINGS["gemma4_unified"]

# What some configurations need before their defaults can be shrunken.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
        }
    },
}
