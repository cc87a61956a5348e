"""Who may ask."""

import pytest

OTHERS = ["evil.example", "evil.example:7411", "127.0.0.1.evil.example", "localhost.", "", "[", "10.0.0.1:7411"]
PAGES = ["/", "/query", "/api/overview", "/static/explorer.js", "/no/such/page"]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("host", OTHERS)
def test_a_name_that_another_site_could_point_here_is_refused(client, path, host):
    response = client.get(path, headers={"Host": host})
    assert response.status_code == 403
    assert "this server answers to 127.0.0.1, ::1, localhost" in response.json()["error"]["message"]


@pytest.mark.parametrize("host", ["127.0.0.1:7411", "localhost:9", "LOCALHOST", "[::1]:7411", "127.0.0.1"])
def test_this_machine_is_answered_by_any_of_its_names_and_ports(client, host):
    assert client.get("/api/overview", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:7411"])
def test_pages_of_others_are_refused(client, origin):
    for response in (
        client.get("/api/overview", headers={"Origin": origin}),
        client.post("/api/ask", json={"completion": "x"}, headers={"Origin": origin}),
    ):
        assert response.status_code == 403
    assert client.get("/api/overview", headers={"Origin": "http://127.0.0.1:7411"}).status_code == 200


def test_what_another_site_has_a_browser_load_is_refused_and_a_link_that_a_person_follows_is_not(client):
    across = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/overview", headers=across | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/query", headers=across | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.post("/api/ask", json={}, headers=across | {"Sec-Fetch-Mode": "navigate"}).status_code == 403


def test_a_link_that_a_person_follows_starts_no_computation(client, project):
    page = client.get("/query?completion=x", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert page.status_code == 200
    assert project.asked == []


def test_a_form_of_another_site_cannot_ask(client, project):
    response = client.post("/api/ask", data={"completion": "x"})
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]
    assert project.asked == []


@pytest.mark.parametrize("path", PAGES)
def test_pages_run_their_own_script_alone_and_stand_in_no_frame(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_page_that_fails_is_guarded_too(client, explorer, monkeypatch):
    monkeypatch.setattr(explorer, "overview", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.get("/")
    transport = type(client)(client.app, base_url="http://127.0.0.1:7411", raise_server_exceptions=False)
    response = transport.get("/")
    assert response.status_code == 500
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "ZeroDivisionError" in response.text
