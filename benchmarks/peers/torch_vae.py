"""The variational autoencoder by hand in eager torch: Kingma and Welling (2014), tanh layers, Bernoulli pixels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


class Vae(nn.Module):
    """Encoder and decoder with two hidden layers each."""

    def __init__(self, columns: int = 784, hidden: int = 200, latent_dim: int = 50) -> None:
        super().__init__()
        layers = (nn.Linear(columns, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.encoder = nn.Sequential(*layers, nn.Linear(hidden, 2 * latent_dim))
        layers = (nn.Linear(latent_dim, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.decoder = nn.Sequential(*layers, nn.Linear(hidden, columns))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z), summed over rows."""
        return -binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")

    def loss(self, x: Tensor) -> Tensor:
        """Minus the ELBO of these rows at one draw, the divergence from the prior in closed form."""
        loc, raw = self.encoder(x).chunk(2, -1)
        scale = softplus(raw)
        divergence = 0.5 * (scale.square() + loc.square() - 1).sum() - scale.log().sum()
        return divergence - self.log_likelihood(x, loc + scale * torch.randn_like(loc))


def fit(x: Tensor, num_steps: int, *, batch_size: int = 128, lr: float = 1e-3) -> Vae:
    """Take steps of Adam over epochs of shuffled rows."""
    vae = Vae(x.shape[1]).to(x.device)
    optimiser = torch.optim.Adam(vae.parameters(), lr=lr, fused=True)
    rest = x.new_zeros(0, dtype=torch.long)
    for _ in range(num_steps):
        if len(rest) < batch_size:
            rest = torch.randperm(len(x), device=x.device)
        rows, rest = rest[:batch_size], rest[batch_size:]
        loss = len(x) / batch_size * vae.loss(x[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return vae
