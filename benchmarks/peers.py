"""diffusers' documented training loop, as a peer for the programs of this folder.

The settings are those of diffusers' script `examples/unconditional_image_generation/train_unconditional.py` and of the
command in its README: the noise is predicted, 1000 steps of the linear schedule, AdamW with a learning rate of 1e-4,
500 steps of warm-up and half a cosine, gradients clipped to norm 1, and a moving average of the weights. `Helped` holds
what the script does not do by itself and what makes it better or faster.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCRIPT = (128, 128, 256, 256, 512, 512)  # widths in the training script; attention at the last level but one
CIFAR10 = (128, 256, 256, 256)  # widths of google/ddpm-cifar10-32; attention at the second level


@dataclass(frozen=True)
class Helped:
    """Settings that differ from the script's; the defaults are the script's."""

    learning_rate: float = 1e-4
    warmup_steps: int = 500
    ema_max_decay: float = 0.9999
    fused: bool = False
    """The fused AdamW."""
    quiet: bool = False
    """Do not read the loss in every step, which waits for the device."""
    channels_last: bool = False
    compiled: bool = False
    flips: bool = True
    """Random horizontal flips, as in the README's command."""


def unet(
    shape: tuple[int, int, int], widths: tuple[int, ...], attention: tuple[int, ...], classes: int | None = None
) -> nn.Module:
    """A `UNet2DModel` with two blocks a level, diffusers' default for everything else."""
    from diffusers import UNet2DModel

    kinds = ["Attn" if level in attention else "" for level in range(len(widths))]
    return UNet2DModel(
        sample_size=shape[1:],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        num_class_embeds=classes,
    )


class DocumentedLoop:
    """The documented loop; `step` trains on one batch.

    `batches` yields (images in [-1, 1], labels or None). `schedule_steps` is the length of the learning rate's cosine.
    """

    def __init__(
        self,
        network: nn.Module,
        batches: Iterator[tuple[Tensor, Tensor | None]],
        schedule_steps: int,
        device: str,
        precision: str = "float32",
        helped: Helped = Helped(),  # frozen
    ) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        AcceleratorState._reset_state(reset_partial_state=True)
        words = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=words[precision])
        self.device, self.helped, self.batches = device, helped, batches
        self.network = network.to(device)
        if helped.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.ema = EMAModel(
            self.network.parameters(),
            decay=helped.ema_max_decay,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            model_cls=type(network),
            model_config=network.config,
        )
        self.ema.to(device)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=helped.learning_rate,
            betas=(0.95, 0.999),
            weight_decay=1e-6,
            eps=1e-8,
            **({"fused": True} if helped.fused else {}),
        )
        rates = get_scheduler(
            "cosine", optimizer=optimiser, num_warmup_steps=helped.warmup_steps, num_training_steps=schedule_steps
        )
        self.module = self.network
        self.network, self.optimiser, self.rates = self.accelerator.prepare(self.network, optimiser, rates)
        if helped.compiled:
            self.network.compile()

    def step(self) -> None:
        """One step, as in the script's loop."""
        clean, labels = next(self.batches)
        if self.helped.channels_last:
            clean = clean.contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        with self.accelerator.accumulate(self.network):
            predicted = self.network(noisy, timesteps, class_labels=labels).sample
            loss = F.mse_loss(predicted.float(), noise.float())
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimiser.step()
            self.rates.step()
            self.optimiser.zero_grad()
        self.ema.step(self.module.parameters())
        if not self.helped.quiet:
            loss.detach().item()  # the script's log


def from_memory(x: Tensor, labels: Tensor | None, batch: int, flips: bool, seed: int = 0) -> Iterator[Any]:
    """Endless shuffled batches of `x` (uint8, on the device of training) in [-1, 1]: no loader can be faster."""
    source = torch.Generator(x.device).manual_seed(seed)
    while True:
        order = torch.randperm(len(x), generator=source, device=x.device)
        for rows in order[: len(x) // batch * batch].split(batch):
            clean = x[rows].float() / 127.5 - 1
            if flips:
                turned = torch.rand(len(rows), 1, 1, 1, generator=source, device=x.device) < 0.5
                clean = torch.where(turned, clean.flip(3), clean)
            yield clean, None if labels is None else labels[rows]


class Pictures(torch.utils.data.Dataset):
    """The pictures of a Parquet file as the script sees them: each is decoded and transformed whenever it is read."""

    def __init__(self, path: Path, side: int) -> None:
        from pyarrow import parquet
        from torchvision import transforms

        column = parquet.read_table(path).column("image").to_pylist()
        self.files = [each["bytes"] if isinstance(each, dict) else each for each in column]
        self.transform: Callable[[Any], Tensor] = transforms.Compose(
            [
                transforms.Resize(side, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(side),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        return self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB"))


def from_pictures(pictures: Pictures, batch: int, device: str, workers: int = 0) -> Iterator[Any]:
    """Endless shuffled batches by a `DataLoader`; the script's default is no worker."""
    loader = torch.utils.data.DataLoader(pictures, batch, shuffle=True, num_workers=workers, drop_last=True)
    while True:
        for clean in loader:
            yield clean.to(device), None
