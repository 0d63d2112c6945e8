"""One run of a model, looked at: the values inside it, its kernels, the time of its FX nodes."""
