"""The diffusion model (section 5 of the lecture), in reading order: schedule, process, denoiser, reverse, sampler."""
