"""Signature Version 4 against the published vectors: AWS's test suite, and the examples of the S3 API reference.

`sigv4_vectors.json` has the values of every case of the suite in awslabs/aws-c-auth (Apache-2.0; it names its source).  The
few that stand here are older forms of the suite's, and the S3 reference's, as other libraries' tests repeat them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from engines.sigv4 import Credentials, Scope, canonical_request, sign, signed_headers

SUITE = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_SCOPE = Scope("20150830T123600Z", "us-east-1", "service")
S3 = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_SCOPE = Scope("20130524T000000Z", "us-east-1", "s3")
NOTHING = hashlib.sha256(b"").hexdigest()
HOST = {"Host": "example.amazonaws.com"}

SUITE_CASES = {
    "get-vanilla": ("GET", "/", [], HOST, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-vanilla-query-order-key-case": (
        "GET", "/", [("Param2", "value2"), ("Param1", "value1")], HOST, b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "post-vanilla": ("POST", "/", [], HOST, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        "POST", "/", [], {**HOST, "Content-Type": "application/x-www-form-urlencoded"}, b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "get-header-value-trim": (
        "GET", "/", [], {**HOST, "My-Header1": " value1", "My-Header2": ' "a   b   c"'}, b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SUITE_CASES)
def test_the_vectors_of_the_test_suite(name: str) -> None:
    method, path, query, headers, body, signature = SUITE_CASES[name]
    digest = hashlib.sha256(body).hexdigest()
    done = signed_headers(method, path, headers, digest, SUITE, SUITE_SCOPE, query)
    assert done["authorization"].endswith(f"Signature={signature}")


VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "support" / "sigv4_vectors.json").read_text())


@pytest.mark.parametrize("name", VECTORS["cases"])
def test_every_case_of_the_published_suite(name: str) -> None:
    """From the request as the suite has it, but for its path, which callers give in its normal form."""
    case = VECTORS["cases"][name]
    assert sign(case["canonical"], VECTORS["secret_key"], SUITE_SCOPE) == case["signature"]
    head, _, body = case["request"].partition("\n\n")
    line, *rows = head.rstrip("\n").split("\n")
    method, target = line.removesuffix(" HTTP/1.1").split(" ", 1)
    headers: dict[str, str] = {}
    header = ""
    for row in rows:
        if row.startswith(" "):  # a value over several lines
            headers[header] += row
            continue
        header, _, value = row.partition(":")
        headers[header] = f"{headers[header]},{value.strip()}" if header in headers else value
    digest = hashlib.sha256(body.encode()).hexdigest()
    if "sign_body" in case:
        headers["x-amz-content-sha256"] = digest
    path = case["canonical"].split("\n")[1]
    query = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    token = None if "unsigned_token" in case else case.get("token")
    whole = {**headers, "x-amz-date": VECTORS["at"], **({"x-amz-security-token": token} if token else {})}
    assert canonical_request(method, path, query, whole, digest) == case["canonical"]
    done = signed_headers(
        method, path, headers, digest, Credentials(SUITE.access_key, SUITE.secret_key, token), SUITE_SCOPE, query
    )
    assert done["authorization"].endswith(f"Signature={case['signature']}")


S3_CASES = {
    "GET object": (
        "GET", "/test.txt", [], {"Range": "bytes=0-9", "x-amz-content-sha256": NOTHING}, NOTHING,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "PUT object": (
        "PUT", "/test%24file.text", [],
        {
            "Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY",
            "x-amz-content-sha256": hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
        },
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "GET bucket lifecycle": (
        "GET", "/", [("lifecycle", "")], {"x-amz-content-sha256": NOTHING}, NOTHING,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "GET bucket, list objects": (
        "GET", "/", [("max-keys", "2"), ("prefix", "J")], {"x-amz-content-sha256": NOTHING}, NOTHING,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", S3_CASES)
def test_the_examples_of_the_s3_reference(name: str) -> None:
    method, path, query, headers, digest, signature = S3_CASES[name]
    whole = {"Host": "examplebucket.s3.amazonaws.com", **headers}
    done = signed_headers(method, path, whole, digest, S3, S3_SCOPE, query)
    names = ";".join(sorted(name.lower() for name in [*whole, "x-amz-date"]))
    assert done["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_temporary_credentials_are_signed_for_with_their_token() -> None:
    temporary = Credentials(SUITE.access_key, SUITE.secret_key, "the token")
    done = signed_headers("GET", "/", HOST, NOTHING, temporary, SUITE_SCOPE)
    assert done["x-amz-security-token"] == "the token"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in done["authorization"]
    request = canonical_request("GET", "/", [], {k: v for k, v in done.items() if k != "authorization"}, NOTHING)
    assert done["authorization"].endswith(sign(request, SUITE.secret_key, SUITE_SCOPE))


def test_a_secret_is_not_printed() -> None:
    assert "wJalr" not in repr(SUITE)
