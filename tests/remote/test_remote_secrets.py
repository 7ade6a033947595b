"""Credentials come by the usual ways, and stay in the process: no message, pickle, cache or log has them."""

import json
import logging
import pickle
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from places import ROOT

import ecg_batch
from benchmarks.stores import proxy_to, put, s3_options, s3_server
from ecg_batch.errors import UserError

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def guarded(folders):
    """An S3 server that checks signatures: (its address, key id, secret)."""
    import boto3

    with s3_server() as address, proxy_to(address) as proxy:
        put(folders["zarr"], address, "bucket", "runs/zarr")
        root = s3_options(address)
        iam = boto3.client("iam", endpoint_url=address, region_name="eu-central-1", aws_access_key_id=root["key"],
                           aws_secret_access_key=root["secret"])  # fmt: skip
        iam.create_user(UserName="reader")
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset-auth", b"0", plain, method="POST"))
        yield proxy.url, key["AccessKeyId"], key["SecretAccessKey"]


URL = "s3://bucket/runs/zarr"


def options(guarded, **changes) -> dict:
    address, key, secret = guarded
    return {"key": key, "secret": secret, "endpoint_url": address, "client_kwargs": {"region_name": "eu-central-1"}} | changes


@pytest.fixture
def no_aws(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.mark.slow
@pytest.mark.parametrize("way", ["storage_options", "environment", "profile", "profile of the environment"])
def test_credentials_come_by_the_usual_ways(guarded, folders, no_aws, tmp_path, way):
    address, key, secret = guarded
    given = None
    if way == "storage_options":
        given = options(guarded)
    elif way == "environment":
        for name, value in (("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_ENDPOINT_URL", address)):
            no_aws.setenv(name, value)
    else:
        (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        (tmp_path / "config").write_text(f"[profile lab]\nregion = eu-central-1\nendpoint_url = {address}\n")
        given = {"profile": "lab"} if way == "profile" else None
        no_aws.setenv(*("AWS_PROFILE", "lab") if given is None else ("AWS_REGION", "eu-central-1"))
    there = ecg_batch.open_dataset(URL, storage_options=given)
    np.testing.assert_array_equal(there.raw[77], ecg_batch.open_dataset(folders["zarr"]).raw[77])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["secret", "key", "none", "profile"])
def test_what_is_refused_is_said_without_any_secret(guarded, no_aws, caplog, wrong):
    caplog.set_level(logging.DEBUG, "ecg_batch")
    given = {
        "secret": options(guarded, secret="hunter22hunter22"),
        "key": options(guarded, key="AKIAHUNTER22HUNTER22"),
        "none": {"endpoint_url": guarded[0]},
        "profile": {"profile": "nobody", "endpoint_url": guarded[0], "token": "hunter22"},
    }[wrong]
    needed = "access is refused .*Give credentials as fsspec takes them"
    needed = "cannot be opened with these storage_options.*profile .nobody. could not be found" if wrong == "profile" else needed
    with pytest.raises(UserError, match=f"^{URL}.*: {needed}") as caught:
        ecg_batch.open_dataset(URL, storage_options=given)
    told = str(caught.value) + caplog.text
    assert "hunter22" not in told.lower() and not any(secret in told for secret in guarded[1:])


@pytest.mark.slow
def test_no_secret_is_pickled_printed_or_cached(guarded, no_aws, tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "ecg_batch")
    dataset = ecg_batch.open_dataset(URL, storage_options=options(guarded), cache=tmp_path / "cache")
    stream = ecg_batch.ECGIterable(dataset.where(flags=""), batch=50)
    loader = ecg_batch.ECGLoader(stream)
    signal = next(iter(loader))["signal"]
    kept = pickle.dumps([dataset, dataset.path, stream, loader.state_dict()])
    cached = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    shown = f"{dataset!r} {dataset.path!r} {dataset.path.store!r} {loader.state_dict()} {caplog.text}".encode()
    for secret in guarded[1:]:
        assert secret.encode() not in kept + cached + shown
    assert signal.shape == (50, 12, 1000) and len(cached) > 100_000
    again = pickle.loads(kept)[0]
    assert len(again) == 540  # what is known already is there
    with pytest.raises(UserError, match="was opened with storage_options, and comes out of a pickle, which never holds them"):
        again.raw[:]


@pytest.mark.slow
def test_what_the_environment_says_needs_no_pickle(guarded, no_aws):
    address, key, secret = guarded
    for name, value in (("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_ENDPOINT_URL", address)):
        no_aws.setenv(name, value)
    code = "import pickle, sys; print(int(pickle.load(sys.stdin.buffer).raw[77].sum()))"
    dataset = ecg_batch.open_dataset(URL)
    kept = pickle.dumps(dataset)
    assert secret.encode() not in kept
    done = subprocess.run([sys.executable, "-c", code], input=kept, capture_output=True, check=True, cwd=ROOT)
    assert int(done.stdout) == int(dataset.raw[77].sum())
