"""One fit in several processes: data-parallel gradient steps under a process group of ``torch.distributed``."""
