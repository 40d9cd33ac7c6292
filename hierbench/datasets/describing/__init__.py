"""Descriptions of the classes of a data set, asked of a language model or a multimodal one."""
