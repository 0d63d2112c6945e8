"""One run of a model in detail: the values inside it, its kernels, the time of its FX nodes."""
