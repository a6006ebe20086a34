"""Facts about the engines that `rollout_engine` names."""

OWN_LOOP = ("transformers", "merged")  # sample with this project's loop
WHOLE_WEIGHTS = ("merged", "vllm")  # are given the policy's weights with the adapter merged
