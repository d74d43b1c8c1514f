"""The Hugging Face hub, asked about data sets: which commit a name stands for, and errors in plain words.

Endpoint and token are those of `huggingface_hub` (HF_ENDPOINT, HF_TOKEN, `hf auth login`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drillcore.errors import InputError, StoreError

TOKEN_HINT = "For a private data set set HF_TOKEN, or log in with `hf auth login`."
# Packages whose errors say that nothing was reached.
OF_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3")


def commit_of(repo: str, revision: str, kind: type[InputError] = StoreError) -> str:
    """The commit that a branch, tag or commit of a data set names now. kind: of error that is raised."""
    with asking(repo, revision, kind) as hub:
        return str(hub.HfApi().dataset_info(repo, revision=revision).sha)


@contextmanager
def asking(repo: str, revision: str = "main", kind: type[InputError] = StoreError) -> Iterator[Any]:
    """Inside, the hub is asked about a data set; yields `huggingface_hub`, and puts its errors into plain words.

    kind: of error that is raised.
    """
    # It loads its parts when they are first named, and not all of them.
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.hf_api
    import huggingface_hub.utils
    from huggingface_hub import errors

    try:
        yield huggingface_hub
    except errors.GatedRepoError:
        url = f"{huggingface_hub.constants.ENDPOINT}/datasets/{repo}"
        raise kind(f"the data set {repo} is gated", hint=f"Ask for access at {url}. {TOKEN_HINT}") from None
    except errors.RepositoryNotFoundError:
        raise kind(f"the hub has no data set {repo} that you may read", hint=TOKEN_HINT) from None
    except errors.RevisionNotFoundError:
        raise kind(f"the data set {repo} has no revision {revision}", hint="Check its branches.") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "")
        raise kind(f"the hub answered {status} about the data set {repo}", hint=TOKEN_HINT) from None
    except (errors.OfflineModeIsEnabled, OSError) as error:
        why = f"the hub could not be asked about the data set {repo}: {error}"
        raise kind(why, hint="Check the connection and HF_ENDPOINT.") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in OF_NETWORK:
            raise
        why = f"the hub could not be asked about the data set {repo}: {type(error).__name__}"
        raise kind(why, hint="Check the connection and HF_ENDPOINT.") from None
