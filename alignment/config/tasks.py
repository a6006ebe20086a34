"""The kinds of models that stages make, by PEFT's name of the task.

PEFT has no task for masked language models; its task without a loss of its own, FEATURE_EXTRACTION, stands for them.
"""

CAUSAL, CLASSIFIER, SEQ2SEQ, MASKED = "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"
AUTO_CLASSES = {  # of transformers
    CAUSAL: "AutoModelForCausalLM",
    CLASSIFIER: "AutoModelForSequenceClassification",
    SEQ2SEQ: "AutoModelForSeq2SeqLM",
    MASKED: "AutoModelForMaskedLM",
}
