"""Kaggle's API: how much a dataset holds, its archive as a stream, and each refusal as one sentence.

Uses the client library of the `kaggle` package, `kagglesdk`. The package `kaggle` itself is never imported: its import
contacts Kaggle, prints, and may end the process. Knows nothing of files on this machine.
"""

import logging
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from cxr.data.download.catalogue import Dataset
from cxr.data.download.credentials import HOW_TO_LOG_IN, KaggleLogin, require_sendable
from cxr.errors import DataError, require_extra

log = logging.getLogger(__name__)

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two packets
BY_HAND = "or download it in a browser as data/README.md describes"


class KaggleApi:
    """One conversation with Kaggle, to be used as a context manager.

    Its methods raise `requests` exceptions; `explain_refusal` turns them into a sentence.
    """

    def __init__(self, login: KaggleLogin | None) -> None:
        require_extra("kagglesdk", "kaggle")
        self._login = login

    def __enter__(self) -> Self:
        login = self._login
        if login is None:
            self._client = _open_client()
        elif login.token is None and login.key is None:
            self._client = _open_client(api_token=_oauth_token(login))
        else:
            self._client = _open_client(api_token=login.token, username=login.username, password=login.key)
        self._session = self._client.http_client()._session
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def listed_bytes(self, dataset: Dataset) -> int | None:
        """The sum of the sizes of all files of `dataset` in bytes, or None where Kaggle does not tell."""
        import requests

        try:
            summary = self._files_summary(dataset).file_summary_info
        except (requests.HTTPError, ValueError, KeyError) as error:
            log.debug("no sizes for %s: %s", dataset.slug, error)
            return None
        total = 0 if summary is None else sum(file_type.total_size for file_type in summary.file_types)
        return total if total > 0 else None

    def _files_summary(self, dataset: Dataset) -> Any:
        if dataset.kind == "competition":
            from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionDataFilesSummaryRequest

            request = ApiGetCompetitionDataFilesSummaryRequest()
            request.competition_name = dataset.slug
            return self._client.competitions.competition_api_client.get_competition_data_files_summary(request)
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetFilesSummaryRequest

        request = ApiGetDatasetFilesSummaryRequest()
        request.owner_slug, request.dataset_slug = dataset.slug.split("/")
        return self._client.datasets.dataset_api_client.get_dataset_files_summary(request)

    def open_archive(self, dataset: Dataset) -> Any:
        """The response whose body is the archive of `dataset`, before its first byte is read.

        Kaggle checks credentials and accepted rules here, so nothing has been downloaded when it refuses.
        """
        response = self._request_archive(dataset)
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            response.close()
            raise DataError(
                f"expected the archive of {dataset.slug}, got a web page from {response.url.split('?')[0]}; "
                f"log in to the network or set HTTPS_PROXY, then repeat the command, {BY_HAND}"
            )
        return response

    def _request_archive(self, dataset: Dataset) -> Any:
        if dataset.kind == "competition":
            from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

            request = ApiDownloadDataFilesRequest()
            request.competition_name = dataset.slug
            return self._client.competitions.competition_api_client.download_data_files(request)
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

        request = ApiDownloadDatasetRequest()
        request.owner_slug, request.dataset_slug = dataset.slug.split("/")
        return self._client.datasets.dataset_api_client.download_dataset(request)

    def continue_archive(self, response: Any, start: int, identity: str) -> Any:
        """Ask again for the body of `response`, from byte `start`.

        Args:
            response: What `open_archive` returned; it is closed.
            start: Number of bytes already here.
            identity: ETag or Last-Modified of these bytes.

        Returns:
            A response with status 206 and the rest, or 200 and everything where the file has changed.
        """
        response.close()
        request = response.request.copy()
        request.headers.update({"Range": f"bytes={start}-", "If-Range": identity})
        settings = self._session.merge_environment_settings(request.url, {}, True, None, None)
        return self._session.send(request, **settings)


def _open_client(**credentials: str | None) -> Any:
    from kagglesdk.kaggle_client import KaggleClient

    client = KaggleClient(user_agent="cxr-lab", **credentials).__enter__()
    session = client.http_client()._session  # the client sets no timeout and offers no way to set one
    session.send = partial(session.send, timeout=TIMEOUT)
    session.headers["Accept-Encoding"] = "identity"
    return client


def _oauth_token(login: KaggleLogin) -> str:
    import requests
    from kagglesdk.kaggle_creds import KaggleCredentials

    try:
        with _open_client() as client:
            token: str = KaggleCredentials.load(client=client).get_access_token()
        require_sendable(token, login.source)
    except (AttributeError, TypeError, ValueError) as error:  # the client trusts the file
        if isinstance(error, requests.RequestException):
            raise
        raise DataError(
            f"{login.source} is damaged ({type(error).__name__}); log in again with `kaggle auth login`, or "
            f"{HOW_TO_LOG_IN}"
        ) from None
    return token


def explain_refusal(error: Exception, dataset: Dataset, login: KaggleLogin | None) -> DataError:
    """A `requests` exception as one sentence: what happened, and what to do.

    Args:
        error: What `KaggleApi` raised.
        dataset: What was asked for.
        login: Who asked.
    """
    response = getattr(error, "response", None)
    if response is None:
        return _explain_silence(error)
    said = f"{response.status_code}{_message(response)}"
    match response.status_code:
        case 401:
            return DataError(f"{_whose(login)} ({said}); {HOW_TO_LOG_IN}, {BY_HAND}")
        case 403 if dataset.kind == "competition":
            return DataError(
                f"Kaggle gives {dataset.slug} only to those who accepted its rules ({said}); accept them at "
                f"{dataset.terms} ('Join Competition' or 'Late Submission', with a verified account) and repeat the "
                f"command, {BY_HAND}"
            )
        case 403:
            return DataError(
                f"Kaggle refuses {dataset.slug} ({said}); open {dataset.page} while logged in, accept its terms and "
                f"repeat the command, {BY_HAND}"
            )
        case 404:
            return DataError(
                f"Kaggle has no {dataset.kind} {dataset.slug} ({said}); see at {dataset.page} whether it was moved or "
                f"removed, {BY_HAND}"
            )
        case 429:
            return DataError(f"Kaggle limits the number of requests ({said}); repeat the command {_when(response)}")
    return DataError(f"Kaggle could not serve {dataset.slug} ({said}); repeat the command later, {BY_HAND}")


def _explain_silence(error: Exception) -> DataError:
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return DataError(
            f"Kaggle did not answer within {TIMEOUT[1]:.0f} seconds; check the network and repeat the command: it "
            "continues where it stopped"
        )
    return DataError(
        f"no connection to Kaggle ({type(error).__name__}); check the network, HTTPS_PROXY and the firewall and repeat "
        f"the command: it continues where it stopped, {BY_HAND}"
    )


def _whose(login: KaggleLogin | None) -> str:
    return "Kaggle asks for credentials" if login is None else f"Kaggle refuses the credentials from {login.source}"


def _message(response: Any) -> str:
    with suppress(ValueError, AttributeError):
        message = response.json().get("message")
        return f": {str(message).strip().rstrip('.')}" if message else ""
    return ""


def _when(response: Any) -> str:
    wait = response.headers.get("Retry-After")
    if wait is None:
        return "in some minutes"
    return f"in {wait} seconds" if wait.isdigit() else f"after {wait}"
