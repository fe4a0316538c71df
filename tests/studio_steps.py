"""What the tests do on the studio's page, and where they do it."""

from pathlib import Path

from service_server import Server
from studio_browser import Browser

TOKEN = "the-token-of-the-tests"
DESKTOP, PHONE = (1280, 900), (360, 760)


def fill(page: Browser, portrait: Path, speech: Path) -> None:
    page.put("portrait-file", portrait)
    page.put("speech-file", speech)
    page.click("consent")


def generate(page: Browser) -> None:
    page.click("generate")
    page.wait_shown("video")
    page.wait_shown("result")


def remove(server: Server, *job_ids: str) -> None:
    for job_id in job_ids:
        server.request("DELETE", f"/v1/videos/{job_id}", headers={"Authorization": f"Bearer {TOKEN}"})


def jobs(server: Server) -> set[str]:
    return {path.name for path in (server.data / "jobs").iterdir()}


def last_options(page: Browser) -> dict:
    script = """
        const done = arguments[arguments.length - 1];
        const token = sessionStorage.getItem("atldiff-token");
        fetch(`/v1/videos/${sessionStorage.getItem("atldiff-job")}`, {headers: {Authorization: `Bearer ${token}`}})
            .then((answer) => answer.json()).then(({options}) => done(options));
    """
    return page.driver.execute_async_script(script)
