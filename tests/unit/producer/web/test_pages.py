"""The pages as a browser gets them: who may see them, their headers, and hostile names in them."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import timedelta
from html.parser import HTMLParser
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path

import httpx
import orjson
import pytest

from millrace.core.bitmaps import bitmap
from millrace.core.errors import ItemError, Stage
from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, error_line, prediction_line
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.enqueue import enqueue
from millrace.producer.web.static_files import static_files
from millrace.producer.web.thumbnail_routes import _drawing
from millrace.producer.web.thumbnails import version_of
from tests.support import wait_until
from tests.unit.core.support import a_spec, created
from tests.unit.producer.support import directory_of, listed_job, object_of, work
from tests.unit.producer.web.test_thumbnails import job_over, listed, photo

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
BIDI = "invoice\u202egpj.exe"


class Reader(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = Reader()
    reader.feed(html)
    return reader.tags


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Six images, two to a chunk; two chunks are done and hold a failure."""
    spec = listed_job(services, tmp_path / "out", images=6)
    work(services, spec, 0, 1, failing={1: "decode/corrupt"})
    return spec


@pytest.fixture
def hostile(services: Services, tmp_path: Path) -> JobSpec:
    """A job over keys, with labels and messages, that would be code if they could."""
    spec = a_spec("hostile", output=str(tmp_path / "out"), chunk_size=3)
    created(services, spec)
    rows = [ManifestRow(f"{EVIL}.jpg"), ManifestRow(BIDI), ManifestRow("c.jpg")]
    enqueue(services, spec, iter(rows))
    lines = [
        prediction_line(rows[0], [{"label": EVIL, "index": 0, "score": 0.5}]),
        prediction_line(rows[1], [{"label": BIDI, "index": 0, "score": 0.5}]),
        error_line(rows[2], ItemError(Stage.DECODE, EVIL, EVIL), 1),
    ]
    directory_of(services, spec).create_chunk(spec.plan, 0, encode_lines(lines))
    keys = JobKeys("hostile")
    services.redis.raw.set(keys.done, bitmap([0]))
    services.redis.raw.set(keys.failed, bitmap([0]))
    services.redis.raw.hset(keys.errors, f"decode/{EVIL}", 1)
    services.redis.raw.hset(keys.record, mapping={"failed": 1, "succeeded": 2})
    return spec


PATHS = ("/", "/new", "/try", "/workers", "/jobs/j", "/jobs/j/images/0", "/jobs/j/pause")


@pytest.mark.parametrize("path", PATHS)
def test_a_page_is_for_who_has_signed_in(path: str, anybody: httpx.Client, job: JobSpec) -> None:
    answer = anybody.get(path, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next={path}"


@pytest.mark.parametrize("path", [*PATHS, "/login"])
def test_a_page_has_no_code_in_it_and_its_policy_forbids_any(
    path: str, client: httpx.Client, job: JobSpec
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "object-src 'none'; base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for tag, attributes in tags(answer.text):
        assert tag != "style"
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/")
        for name, value in attributes.items():
            assert not name.startswith(("on", "hx-on")), (tag, name)
            assert name != "style", tag
            assert not (value or "").strip().lower().startswith("javascript:")
            if name in ("src", "href", "action", "formaction"):
                assert (value or "").startswith(("/", "#")), (tag, name, value)


@pytest.mark.parametrize("path", [*PATHS, "/login"])
def test_a_page_tells_the_version_of_millrace(
    path: str, client: httpx.Client, job: JobSpec
) -> None:
    assert f"<span>millrace {version('millrace')}</span>" in client.get(path).text


@pytest.mark.parametrize("path", [*PATHS, "/login"])
def test_everything_has_a_name(path: str, client: httpx.Client, job: JobSpec) -> None:
    found = tags(client.get(path).text)
    names = {attributes.get("for") for tag, attributes in found if tag == "label"}
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in found].count("main") == 1
    assert [tag for tag, _ in found].count("h1") == 1
    for tag, attributes in found:
        if tag in ("input", "select", "textarea") and attributes.get("type") != "hidden":
            assert attributes.get("id") in names, attributes
        if tag == "img":
            assert "alt" in attributes
        for reference in ("aria-labelledby", "aria-describedby"):
            for name in (attributes.get(reference) or "").split():
                assert name in ids, name


def test_a_viewer_is_offered_nothing_to_do(looker: httpx.Client, job: JobSpec) -> None:
    page = looker.get("/jobs/j").text
    assert "sign in as an operator" in page
    assert "ask-pause" not in page
    assert "/new" not in page
    assert looker.get("/new").status_code == 403
    assert looker.post("/jobs/j/pause").status_code == 403


def test_a_page_of_another_site_can_do_nothing(client: httpx.Client, job: JobSpec) -> None:
    answer = client.post("/jobs/j/pause", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert client.get("/v1/jobs/j").json()["state"] == "running"


def test_hostile_names_are_text(client: httpx.Client, hostile: JobSpec, services: Services) -> None:
    wait_until(lambda: "U+202E" in client.get("/jobs/hostile").text, 10, "classes are counted")
    for path in ("", "/gallery", "/images/0", "/images/1", "/images/2", f"?label={EVIL}"):
        html = client.get(f"/jobs/hostile{path}").text
        found = tags(html)
        assert not [attributes for tag, attributes in found if "onerror" in attributes], path
        assert all(
            (a.get("src") or "").startswith("/static/") for tag, a in found if tag == "script"
        )
        assert "<script>alert" not in html
        assert "\u202e" not in html


def test_pages_about_what_is_not_there(client: httpx.Client, job: JobSpec) -> None:
    for path in ("/jobs/none", "/jobs/j/images/99", "/jobs/j/dance", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "<h1>" in answer.text, path
    assert client.get("/jobs/" + "x" * 200).status_code == 422
    assert "j has 6 images, and none of number 1,000" in client.get("/jobs/j/images/999").text
    assert "<code>millrace jobs</code> lists them" in client.get("/jobs/none").text


@pytest.mark.parametrize(
    "path", ["../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "%2Fetc/passwd"]
)
def test_no_path_leads_out_of_the_static_files(path: str, anybody: httpx.Client) -> None:
    # As it stands: other clients tidy a path before they send it.
    connection = HTTPConnection(anybody.base_url.host, anybody.base_url.port or 80)
    with closing(connection):
        connection.request("GET", f"/static/{path}")
        answer = connection.getresponse()
        assert answer.status == 404
        assert b"import" not in answer.read()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/jobs/<b>", 422), ("/jobs/none/gallery", 404), ("/?cursor=<b>", 422), ("/new?x=<b>", 403)],
)
def test_htmx_which_takes_anything_gets_what_it_can_show(
    path: str, status: int, looker: httpx.Client, job: JobSpec
) -> None:
    answer = looker.get(path, headers={"accept": "*/*", "hx-request": "true"})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith('<p class="note bad" role="alert">')
    assert "<b>" not in answer.text


def test_a_program_gets_problem_details(anybody: httpx.Client) -> None:
    answer = anybody.get("/jobs/none", headers={"accept": "*/*"}, follow_redirects=False)
    assert answer.status_code == 303
    answer = anybody.get("/nothing", headers={"accept": "*/*"})
    assert answer.headers["content-type"] == "application/problem+json"


def test_filters_and_pages_of_jobs(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    for n in range(27):
        listed_job(services, tmp_path / "out", job_id=f"job-{n:02}", images=2)
    services.jobs.pause("job-05")
    first = client.get("/").text
    assert first.count('<tr id="row-') == 25
    older = re.search(r'href="/\?(cursor=[^"]+)" rel="next"', first)
    assert older is not None
    assert client.get(f"/?{older[1]}").text.count('<tr id="row-') == 2
    paused = client.get("/?state=paused").text
    assert re.findall(r'<tr id="row-([^"]+)"', paused) == ["job-05"]
    assert "No job is like that" in client.get("/?model=other").text
    for nonsense in ("state=nonsense", "model=no model!"):
        assert client.get(f"/?{nonsense}").text.count('<tr id="row-') == 25


def test_a_label_may_be_as_long_as_a_label_may(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    name, value = "n" * 63, "v" * 255
    listed_job(services, tmp_path / "out", job_id="ours", labels={name: value})
    assert "row-ours" in client.get(f"/?label={name}={value}").text
    assert "row-ours" not in client.get(f"/?label={name}={value[1:]}").text
    for endless in ("x" * 30_000, "x" * 300 + "=v", "x=" + "v" * 30_000):
        assert len(client.get(f"/?label={endless}").raise_for_status().text) < 20_000


def test_jobs_by_their_label(client: httpx.Client, services: Services, tmp_path: Path) -> None:
    listed_job(services, tmp_path / "out", job_id="ours", labels={"team": "a=b"})
    listed_job(services, tmp_path / "out", job_id="theirs", labels={"team": "c"})
    page = client.get("/jobs/ours").text
    assert '<a href="/?label=team%3Da%3Db">' in page
    found = client.get("/?label=team%3Da%3Db").text
    assert re.findall(r'<tr id="row-([^"]+)"', found) == ["ours"]
    assert 'name="label" class="mono" value="team=a=b"' in found
    assert "No job is like that" in client.get("/?label=team=d").text
    nonsense = client.get("/?label=<team>").text
    assert "&#39;&lt;team&gt;&#39; is no label: expected NAME=VALUE" in nonsense
    assert 'class="mono" value="&lt;team&gt;"' in nonsense
    assert '<tr id="row-' not in nonsense


def test_what_became_of_a_notification(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    listed_job(services, tmp_path / "out", notify="https://example.org/secret-hook")
    page = client.get("/jobs/j").text
    assert re.search(r"<dt>Notification</dt><dd><bdi .*https://example.org</bdi>, armed", page)
    assert "secret-hook" not in page


def test_the_gallery_by_the_page(client: httpx.Client, job: JobSpec) -> None:
    whole = client.get("/jobs/j/gallery").text
    assert re.findall(r'href="/jobs/j/images/(\d+)"', whole) == ["0", "1", "2", "3"]
    errors = client.get("/jobs/j/gallery?kind=errors")
    assert re.findall(r'href="/jobs/j/images/(\d+)"', errors.text) == ["1"]
    assert errors.headers["hx-replace-url"] == "/jobs/j?kind=errors"
    assert "No image is like that" in client.get("/jobs/j/gallery?label=dog").text
    assert client.get("/jobs/j/gallery?after=-1").status_code == 422


def test_storage_that_is_away_takes_only_its_own_part_away(
    client: httpx.Client, job: JobSpec
) -> None:
    (Path(job.directory.root) / "job.json").unlink()
    page = client.get("/jobs/j")
    assert page.status_code == 200
    assert 'value="4"' in page.text
    shots = page.text.partition('id="shots"')[2].partition("</ul>")[0]
    assert 'role="alert"' in shots
    assert "Look again" in shots
    piece = client.get("/jobs/j/gallery", headers={"hx-request": "true"})
    assert piece.status_code == 200
    assert 'role="alert"' in piece.text


def test_a_damaged_chunk_takes_only_itself_away(client: httpx.Client, job: JobSpec) -> None:
    object_of(job, 0).write_bytes(b"nonsense\n")
    page = client.get("/jobs/j")
    assert page.status_code == 200
    assert re.findall(r'<li class="shot"><a href="/jobs/j/images/(\d+)"', page.text) == ["2", "3"]
    assert "Not done yet" in client.get("/jobs/j/images/0").text


def test_a_line_that_lacks_what_a_page_shows_takes_nothing_away(
    client: httpx.Client, job: JobSpec
) -> None:
    a = {"label": "a", "score": 0.5}
    lines: list[dict[str, object]] = [
        {"key": "0.jpg", "etag": None, "error": {"stage": "decode", "code": "corrupt"}},
        {"key": "1.jpg", "etag": None, "predictions": [{"score": 0.5}]},
        {"key": "2.jpg", "etag": None, "predictions": [a, {}]},
        {"key": "3.jpg", "etag": None, "predictions": [a, {"label": "b", "score": "0.4"}]},
    ]
    for chunk in range(2):
        body = encode_lines(map(orjson.dumps, lines[2 * chunk : 2 * chunk + 2]))
        object_of(job, chunk).write_bytes(body)
    for path in ("", "/gallery"):
        page = client.get(f"/jobs/j{path}")
        assert page.status_code == 200
        shown = re.findall(r'<li class="shot"><a href="/jobs/j/images/(\d+)"', page.text)
        assert shown == ["0", "1", "2", "3"]
        assert "[{&#34;score&#34;:0.5}]" in page.text
    for row in range(4):
        image = client.get(f"/jobs/j/images/{row}")
        assert image.status_code == 200
        assert "Attempts" not in image.text


def test_a_label_is_sent_back_as_it_came(client: httpx.Client, job: JobSpec) -> None:
    label = "می\u200cخواهم<"
    page = client.get("/jobs/j", params={"label": label}).text
    field = next(a for tag, a in tags(page) if tag == "input" and a.get("name") == "label")
    assert field["value"] == label


def test_a_retry_that_is_sent_twice_is_one_job(
    client: httpx.Client, services: Services, job: JobSpec
) -> None:
    work(services, job, 2)
    for page in ("/jobs/j", "/jobs/j/retry"):
        form = client.get(page).text.partition('action="/jobs/j/retry"')[2]
        stamp = re.search(r'name="request" value="([^"]+)"', form)
        assert stamp is not None
        made = {
            client.post(
                "/jobs/j/retry", data={"request": stamp[1]}, follow_redirects=False
            ).headers["location"]
            for _ in "ab"
        }
        assert made == {f"/jobs/tiny-{stamp[1]}?done=retry"}
    assert len(services.jobs.recent_jobs(10)) == 3


def test_what_cannot_be_undone_is_not_what_enter_does(client: httpx.Client, job: JobSpec) -> None:
    page = client.get("/jobs/j").text
    for action, at_hand in (("pause", "Pause"), ("cancel", "Not now")):
        dialog = page.partition(f'id="ask-{action}"')[2].partition("</dialog>")[0]
        assert re.findall(r"autofocus>([^<]+)<", dialog) == [at_hand]


def test_what_is_done_to_a_job(client: httpx.Client, job: JobSpec, services: Services) -> None:
    page = client.post("/jobs/j/pause")
    assert "Paused. Chunks in hand are being finished." in page.text
    assert services.jobs.record("j").state == "paused"
    assert "do-resume" in page.text
    client.post("/jobs/j/resume")
    assert services.jobs.record("j").state == "running"
    client.post("/jobs/j/cancel")
    wait_until(lambda: services.jobs.record("j").state.terminal, 10, "it is cancelled")
    again = client.post("/jobs/j/cancel")
    assert again.status_code == 409
    assert "cannot be cancelled" in again.text


def test_thumbnails_are_for_who_has_signed_in(anybody: httpx.Client, job: JobSpec) -> None:
    answer = anybody.get("/jobs/j/thumbnails/0", follow_redirects=False)
    assert answer.status_code in (303, 401)


def test_a_thumbnail_that_cannot_be_is_a_harmless_drawing(
    client: httpx.Client, job: JobSpec
) -> None:
    answer = client.get("/jobs/j/thumbnails/0")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/jobs/j/thumbnails/0?side=4096").status_code == 422
    assert client.get("/jobs/j/thumbnails/77").status_code == 404


def test_a_thumbnail_stays_with_the_browser_only_as_that_of_its_job(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    page = client.get("/jobs/j/images/0").text
    url = re.search(r'<img src="([^"]+)"', page)
    assert url is not None
    kept = client.get(url[1].replace("&amp;", "&"))
    assert "immutable" in kept.headers["cache-control"]
    for v in ("", f"?v={version_of(spec)}0"):
        answer = client.get(f"/jobs/j/thumbnails/0{v}")
        assert answer.headers["cache-control"] == "private, no-cache"
        again = {"if-none-match": answer.headers["etag"]}
        answer = client.get(f"/jobs/j/thumbnails/0{v}", headers=again)
        assert (answer.status_code, answer.headers["cache-control"]) == (304, "private, no-cache")
    # Another job of that id.
    later = spec.model_copy(update={"created_at": spec.created_at + timedelta(seconds=1)})
    assert version_of(later) != version_of(spec)


def test_why_there_is_no_picture_stands_in_words(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    job_over(services, tmp_path, listed(tmp_path, "a.jpg"), ManifestRow("b.jpg"))
    assert 'alt="a.jpg, made smaller"' in client.get("/jobs/j/images/0").text
    assert 'alt="b.jpg, gone"' in client.get("/jobs/j/images/1").text


def test_a_drawing_has_the_colours_of_the_pages() -> None:
    light, dark = static_files()["app.css"].body.decode().split("prefers-color-scheme: dark")[:2]
    drawn, in_the_dark = _drawing("gone").partition("}}</style>")[::2]
    for colours, scheme in ((in_the_dark, light), (drawn, dark)):
        paper, ink = (re.search(rf"--{name}: (#\w+)", scheme) for name in ("sunken", "soft"))
        assert paper is not None
        assert ink is not None
        assert set(re.findall(r"#\w{6}", colours)) == {paper[1], ink[1]}


def test_static_files_are_kept_by_their_content(anybody: httpx.Client) -> None:
    page = anybody.get("/login").text
    urls = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(urls) == 6
    for url in urls:
        answer = anybody.get(url)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        etag = {"if-none-match": answer.headers["etag"]}
        assert anybody.get(url, headers=etag).status_code == 304
        assert anybody.get(url.partition("?")[0]).headers["cache-control"] == "no-cache"


def test_the_files_of_others_are_as_published_and_have_their_licence() -> None:
    import hashlib

    from millrace.producer.web.static_files import FOLDER

    note = (FOLDER / "vendor" / "README.md").read_text()
    said = dict(re.findall(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", note, re.M))
    scripts = {path.name: path.read_bytes() for path in (FOLDER / "vendor").glob("*.js")}
    assert {name: hashlib.sha256(body).hexdigest() for name, body in scripts.items()} == said
    assert len([*(FOLDER / "vendor").glob("LICENSE-*.txt")]) == len(scripts)
