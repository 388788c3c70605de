"""Downloads and uploads presets by the library of Kaggle."""

from __future__ import annotations

from pathlib import Path

from keras_tokenlearner._extras import require


def download_from_kaggle(owner: str, handle: str) -> Path:
    """Return the folder of a model on Kaggle. Download the model if it is not in the cache.

    Raises:
        ImportError: If kagglehub is not installed.
        ValueError: If the model does not exist.
        PermissionError: If the model is private or gated.
        ConnectionError: If the network fails, and the model is not in the cache.
    """
    kagglehub = require("kagglehub", "kaggle")
    try:
        return Path(kagglehub.model_download(handle))
    except Exception as error:  # any error of the library or the network
        status = status_of(error)
        if status in (401, 403):
            raise PermissionError(
                f"{owner}: kaggle://{handle} is private or gated; accept its licence on its page, "
                "then set KAGGLE_API_TOKEN or call kagglehub.login()"
            ) from None
        if status == 404 or isinstance(error, ValueError):
            raise ValueError(
                f"{owner}: `preset` must be the handle of a model on Kaggle; check the spelling. "
                f"Received: preset='kaggle://{handle}'"
            ) from None
        raise ConnectionError(
            f"{owner}: kaggle://{handle} could not be downloaded ({type(error).__name__}) and is "
            "not in the cache; check the network and try again"
        ) from None


def upload_to_kaggle(owner: str, handle: str, folder: Path) -> None:
    """Upload a folder as a model on Kaggle, or as a new version of the model.

    Raises:
        ImportError: If kagglehub is not installed.
        ValueError: If the handle does not name a model, or has a version.
        PermissionError: If the account may not write to this handle.
        ConnectionError: If the upload fails.
    """
    kagglehub = require("kagglehub", "kaggle")
    try:
        kagglehub.model_upload(handle, str(folder))
    except ValueError as error:
        raise ValueError(
            f"{owner}: `uri` must be 'kaggle://OWNER/MODEL/FRAMEWORK/VARIATION', without a "
            f"version. Received: uri='kaggle://{handle}'"
        ) from error
    except Exception as error:  # any error of the library or the network
        if status_of(error) in (401, 403):
            raise PermissionError(
                f"{owner}: your account cannot write to kaggle://{handle}; set KAGGLE_API_TOKEN "
                "or call kagglehub.login()"
            ) from None
        raise ConnectionError(
            f"{owner}: the upload to kaggle://{handle} failed ({type(error).__name__}); check the "
            "network and try again"
        ) from None


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error of a hub's library, or `None`."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    code: int | None = getattr(error, "error_code", None)
    return code if status is None else status
