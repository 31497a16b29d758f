"""The leak gate: the same patient, file or film in two parts of a dataset."""
