"""A module and a DataModule of a user who has the package `lightning`, and knows nothing of this library."""

import lightning as L
import torch


class Data(L.LightningDataModule):
    def __init__(self, n: int = 640):
        super().__init__()
        self.n = n

    def setup(self, stage=None):
        x = torch.rand(self.n, 5, generator=torch.Generator().manual_seed(0))
        self.set = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.set, 16)

    val_dataloader = test_dataloader = train_dataloader


class Net(L.LightningModule):
    huge = False

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        self.seen = []

    def training_step(self, batch, i):
        self.seen.append(i)
        if self.huge:
            torch.empty(1 << 52)
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, i):
        self.log("valid_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, i):
        self.log("test_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)
