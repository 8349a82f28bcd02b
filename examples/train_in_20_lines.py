"""Trains a network to draw handwritten digits, in a few minutes on two cores, and writes digits.png."""

import torch
from torch.utils.data import DataLoader, RandomSampler

from tinyddpm import DDPM, EMA, DenoisingLoss, Schedule, UNet, train_steps, warmup_cosine
from tinyddpm.data import mnist
from tinyddpm.viz import image_grid, save_picture


def main(steps: int = 800, batch_size: int = 48, rows: int = 5, path: str = "digits.png") -> DDPM:
    # The data: 60,000 digits with their labels, shuffled, in batches.
    digits = mnist()
    batches = DataLoader(digits, batch_size, sampler=RandomSampler(digits, num_samples=steps * batch_size))

    # The network: it will see a noisy image x_t, its time t and its label y, and predict the clean image x_0.
    schedule = Schedule.named("cosine-shifted", T=1000)
    network = UNet(dims=(16, 32, 64), attention=(4,), num_classes=10)
    average = EMA(network, decay=0.99)  # of the weights over the last hundred steps: it draws better than the last

    # The training: noise is added to each image, and the network learns to remove it.
    loss = DenoisingLoss(schedule, predicts="x_0")
    optimizer = torch.optim.AdamW(network.parameters())
    rate = warmup_cosine(3e-3, warmup=50, steps=steps)
    for step in train_steps(network, batches, loss, optimizer, rate, average):
        if step.number % 50 == 0:
            print(f"step {step.number} of {steps}: loss {step.losses.mean():.3f}", flush=True)

    # The samples: noise becomes rows of the ten digits, in 25 steps.
    ddpm = DDPM(average.model, schedule, predicts="x_0")
    images = ddpm.sample(y=torch.arange(10).repeat(rows), steps=25, scale=1.5)
    save_picture(image_grid(images, columns=10, enlarge=2), path)
    return ddpm


if __name__ == "__main__":
    main()
