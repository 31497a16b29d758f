"""Config -> run folder: the one LightningModule, the one LightningDataModule, callbacks, `fit`."""
