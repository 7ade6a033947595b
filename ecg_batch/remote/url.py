"""URLs: what is one, which are refused, and the file system of fsspec behind it. No message repeats a password or a query."""

import re
from collections.abc import Mapping
from pathlib import Path

from ecg_batch.errors import UserError, clipped, shown

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)
CHAIN = re.compile(r"[A-Za-z0-9]+::.*://", re.ASCII)  # as in simplecache::s3://bucket
LOCAL = ("file", "local")
EXTRA = ("s3", "s3a", "http", "https")  # what the extra `remote` brings
FTP = "ftp"  # fsspec has one connection for all threads there, and knows no ranges that count from the end
CONNECTIONS = 64  # that a process may have open; botocore's own limit is 10
NO_SECRETS = ("profile", "endpoint_url", "region_name")  # options that a message may repeat
TRY_S = {"connect": 10, "read": 30}  # without a byte


def is_url(text: object) -> bool:
    return isinstance(text, str) and (CHAIN.match(text) or URL.match(text)) is not None and not is_local(text)


def is_local(text: str) -> bool:
    return any(text.startswith(f"{protocol}://") for protocol in LOCAL)


def local_path(text: str | Path) -> Path:
    """A path, or what follows file://."""
    return Path(re.sub(r"^(file|local)://", "", text) if isinstance(text, str) else text)


def refuse_flattened(path: str | Path) -> None:
    """UserError where a URL became a Path, which makes one slash of its two."""
    if isinstance(path, Path) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]", str(path)) and not path.exists():
        raise UserError(f"{shown_url(str(path))}: a URL is given as text, as Path makes one slash of its two. Leave Path() out")


def refuse_url(text: object, why: str) -> None:
    """UserError where text is a URL and a folder is needed. why: what is done there, as 'a dataset is made'."""
    if is_url(str(text)):
        raise UserError(f"{shown_url(str(text))}: {why} in a folder of this machine, not at a URL. Give a folder; the "
                        "store's own tools copy to and from it")  # fmt: skip


def cache_folder(cache: str | Path) -> Path:
    """The folder that `cache` names. UserError where it is none of this machine."""
    if not isinstance(cache, str | Path) or is_url(str(cache)):
        raise UserError(f"cache is {shown(cache)}; needed a folder of this machine, as '/scratch/ecg-cache', for what is fetched")
    return local_path(cache).expanduser().absolute()


def shown_url(url: str) -> str:
    """A URL without what may be secret in it."""
    return clipped(re.sub(r"//[^/]*@", "//***@", re.sub(r"[?#].*", "?***", url, flags=re.DOTALL)))


def checked_url(url: str) -> str:
    """The URL without slashes at its end. UserError where it is chained, or holds a password or a query."""
    told = shown_url(url)
    if "::" in url:
        raise UserError(f"{told}: a chained URL is not read, because its caches may serve bytes of what was there before. Give "
                        "the inner URL and cache='DIR', which is held against the dataset's sums")  # fmt: skip
    web = url.lower().startswith(("http:", "https:"))
    if web and re.search(r"[?#]", url):
        raise UserError(f"{told}: a query or fragment in a URL of a dataset leads to one file only, and may be a secret. Give the "
                        "URL of its folder, and credentials as storage_options")  # fmt: skip
    user = URL.sub("", url, count=1).split("/")[0].rpartition("@")[0]
    if ":" in user or (web and user):
        raise UserError(f"{told}: a password in a URL gets into logs and lists of processes. Leave it out, and give it as fsspec "
                        "takes it: in the environment, in its configuration, or as storage_options")  # fmt: skip
    if not URL.sub("", url, count=1).strip("/"):
        raise UserError(f"{told}: names no dataset. Give the URL of its folder, as s3://bucket/runs/rare")
    return url.rstrip("/")


def file_system(url: str, options: Mapping):
    """(the fsspec file system of a URL, its path there). UserError where its package is absent, or the options are not its own."""
    import fsspec.asyn

    protocol = URL.match(url)[1].lower()
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        needed = "the extra 'remote': pip install 'ecg-batch[remote]'" if protocol in EXTRA else f"its package: {error}"
        raise UserError(f"{url}: {protocol}:// needs {needed}") from None
    except ValueError:
        raise UserError(f"{url}: fsspec knows no {protocol}://. Known are s3, https, gs, abfs, memory and others that "
                        "fsspec.available_protocols() lists") from None  # fmt: skip
    try:
        of_url = kind._get_kwargs_from_urls(url)  # the host of ftp, the account of abfs
        fs = kind(skip_instance_cache=True, **of_url | _with_ours(protocol, options))
        if hasattr(fs, "set_session"):  # of s3 and http: once, before many threads would each begin one
            fsspec.asyn.sync(fs.loop, fs.set_session)
    except Exception as error:  # each has its own; a profile that is not there, say
        raise UserError(f"{url}: cannot be opened with these storage_options or this environment: "
                        f"{scrubbed(error, options)}") from None  # fmt: skip
    if protocol in ("s3", "s3a"):
        fs.retries = 1  # of s3fs, beside those of botocore: five times five times ours would take minutes to say no
    return fs, kind._strip_protocol(url)


def _with_ours(protocol: str, options: Mapping) -> dict:
    """Options with our limits of time and connections where they say nothing else. It is store.py alone that tries again."""
    options = dict(options)
    if protocol in ("s3", "s3a"):
        ours = {"connect_timeout": TRY_S["connect"], "read_timeout": TRY_S["read"], "max_pool_connections": CONNECTIONS,
                "retries": {"total_max_attempts": 1}}  # fmt: skip
        options["config_kwargs"] = ours | dict(options.get("config_kwargs") or {})
        options.setdefault("use_listings_cache", False)
    elif protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=TRY_S["connect"], sock_read=TRY_S["read"])
        options["client_kwargs"] = {"timeout": timeout} | dict(options.get("client_kwargs") or {})
        # a server that compresses on the way, as nginx may do with JSON, gives no ranges of it
        options["headers"] = {"Accept-Encoding": "identity"} | dict(options.get("headers") or {})
    return options


def scrubbed(error: object, options: Mapping) -> str:
    """The words of an error without any value of the options, or of AWS' variables, that may be a secret."""
    import os

    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    words = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    for secret in (*_texts(options), *(os.environ.get(name, "") for name in names)):
        words = words.replace(secret, "***") if len(secret) >= 4 and not URL.match(secret) else words
    return clipped(re.sub(r"//[^/\s]*@", "//***@", re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?***", words)))


def _texts(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [text for name, inner in value.items() if name not in NO_SECRETS for text in _texts(inner)]
    if isinstance(value, (list, tuple)):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


