"""What training minimises: Eq. 1 of the paper; for networks that predict the image, their error as a velocity."""

from __future__ import annotations

import torch
from torch import Tensor

from kind_core.config import DiffusionConfig
from kind_core.schedule import read_noise_levels
from kind_train.config import check_timesteps

# Times of a straight path are drawn as sigmoid(normal), as in https://arxiv.org/abs/2403.03206.
TIMESTEP_MEAN, TIMESTEP_STD = 0.4, 1.1
# Below this sigma the velocity weight 1 / sigma^2 stops growing, as in https://arxiv.org/abs/2511.13720.
MIN_SIGMA = 0.05


class Objective:
    """The denoising loss of one noise schedule and prediction type, and the timesteps that it is taken at.

    Raises ConfigError where `timestep_mean` or `timestep_std` is given for another schedule than `flow`.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        device: torch.device,
        *,
        timestep_mean: float | None = None,
        timestep_std: float | None = None,
    ) -> None:
        check_timesteps(config, timestep_mean=timestep_mean, timestep_std=timestep_std)
        self._timestep_mean = TIMESTEP_MEAN if timestep_mean is None else timestep_mean
        self._timestep_std = TIMESTEP_STD if timestep_std is None else timestep_std
        self.prediction_type = config.prediction_type
        self.num_timesteps = config.num_train_timesteps
        self._is_flow = config.noise_schedule == "flow"
        alpha, sigma = read_noise_levels(config)
        self.alpha, self.sigma = alpha.to(device), sigma.to(device)

    def draw_timesteps(self, count: int, generator: torch.Generator, *, is_usual: bool = False) -> Tensor:
        """Long (count,) from 0: all alike, or those of a straight path at sigmoid(normal) of the way to noise.

        `is_usual`: whatever mean and deviation are trained, so that losses there can be compared.
        """
        mean, std = (TIMESTEP_MEAN, TIMESTEP_STD) if is_usual else (self._timestep_mean, self._timestep_std)
        device = self.alpha.device
        if not self._is_flow:
            return torch.randint(self.num_timesteps, (count,), generator=generator, device=device)
        time = torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=device))
        return (time * self.num_timesteps).long().clamp(max=self.num_timesteps - 1)

    def add_noise(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """images, noise (batch, channels, size, size); timesteps long (batch,) from 0."""
        return self._alpha(timesteps) * images + self._sigma(timesteps) * noise

    def condition(self, timesteps: Tensor) -> Tensor:
        """The timestep that the network is told, as its scheduler will tell it; flow counts from 1."""
        return timesteps.float() + (1 if self._is_flow else 0)

    def timesteps(self, conditions: Tensor) -> Tensor:
        """The timesteps, long, that a network was told by `condition`."""
        return conditions.long() - (1 if self._is_flow else 0)

    def target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should answer."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return images
        if self.prediction_type == "flow_prediction":
            return noise - images
        return self._alpha(timesteps) * noise - self._sigma(timesteps) * images

    def predicted_image(self, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The image that an answer to `noisy` implies, float32."""
        answer, alpha, sigma = output[:, : noisy.shape[1]].float(), self._alpha(timesteps), self._sigma(timesteps)
        if self.prediction_type == "sample":
            return answer
        if self.prediction_type == "flow_prediction":
            return noisy - sigma * answer
        if self.prediction_type == "epsilon":
            return (noisy - sigma * answer) / alpha
        return alpha * noisy - sigma * answer

    def answer(self, images: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The answer to `noisy` that implies `images`: what `predicted_image` undoes."""
        alpha, sigma = self._alpha(timesteps), self._sigma(timesteps)
        return self.target(images, (noisy - alpha * images) / sigma, timesteps)

    def share_of_noise(self, timesteps: Tensor) -> Tensor:
        """sigma / (alpha + sigma): where on the straight path the same ratio of image to noise is, (batch,)."""
        alpha, sigma = self.alpha[timesteps], self.sigma[timesteps]
        return sigma / (alpha + sigma)

    def loss(self, output: Tensor, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mean squared error of each sample, (batch,); an image prediction is weighted as the velocity it implies."""
        error = output[:, : images.shape[1]].float() - self.target(images, noise, timesteps)
        loss = error.square().mean(dim=(1, 2, 3))
        if self.prediction_type == "sample":
            # v = (alpha x_t - x_0) / sigma, so an error of x_0 is an error of v divided by sigma
            loss = loss / self.sigma[timesteps].clamp(min=MIN_SIGMA).square()
        return loss

    def _alpha(self, timesteps: Tensor) -> Tensor:
        return self.alpha[timesteps][:, None, None, None]

    def _sigma(self, timesteps: Tensor) -> Tensor:
        return self.sigma[timesteps][:, None, None, None]
