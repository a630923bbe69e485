"""Servings: make images or texts from inputs, on this machine or with a service."""

from fastgen.dataflow.serving.api_image_gen_serving import APIImageGenServing
from fastgen.dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai
from fastgen.dataflow.serving.local_image_gen_serving import LocalImageGenServing
from fastgen.dataflow.serving.local_model_vlm_serving import LocalModelVLMServing_vllm

__all__ = ["APIImageGenServing", "APIVLMServing_openai", "LocalImageGenServing", "LocalModelVLMServing_vllm"]
