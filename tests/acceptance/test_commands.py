"""The command line by itself: what it says, and with which exit status."""

import json
import re

from acceptance.installation import CAMPAIGN, Installation


def test_settings_that_cannot_be_used_are_all_named_and_exit_2(installation: Installation) -> None:
    """One message for all of them, and a password in a URL is not shown."""
    installation.environ |= {
        "POSTERN_SFTP_PORT": "99999",
        "POSTERN_TIMEZONE": "Mars",
        "POSTERN_SMTP_URL": "http://user:hunter2@mail.example",
    }
    result = installation.run("serve")
    assert result.returncode == 2
    for name in ("POSTERN_SFTP_PORT", "POSTERN_TIMEZONE", "POSTERN_SMTP_URL"):
        assert name in result.stderr
    assert "hunter2" not in result.stderr + result.stdout


def test_wrong_use_exits_2(installation: Installation) -> None:
    """A missing argument, an unknown command, an unknown queue."""
    for arguments in (["campaign", "create"], ["frobnicate"], ["worker", "--queues", "files,nonsense"]):
        assert installation.run(*arguments).returncode == 2


def test_a_campaign_is_created_listed_and_shown(installation: Installation) -> None:
    """Its id is well formed, and the content comes back as it was."""
    campaign_id = installation.new_campaign()
    assert re.fullmatch(r"campaign_[0-9a-f-]{36}", campaign_id)
    shown = installation.postern("campaign", "show", campaign_id)
    assert shown["templates"] == CAMPAIGN["templates"]
    assert (shown["parameters"], shown["rate"], shown["channel"]) == (["recipient_name", "topic"], 500, "public")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+08:00", shown["createdAt"])
    assert [found["id"] for found in installation.postern("campaign", "list")] == [campaign_id]


def test_a_refusal_is_a_sentence_or_a_document_and_exits_1(installation: Installation) -> None:
    """For people on standard error; for programs as JSON there."""
    missing = "campaign_00000000-0000-4000-8000-000000000000"
    for_people = installation.run("campaign", "show", missing)
    assert (for_people.returncode, for_people.stdout) == (1, "")
    assert f"There is no campaign {missing}." in for_people.stderr
    for_programs = installation.run("campaign", "show", missing, "--json")
    assert for_programs.returncode == 1
    assert json.loads(for_programs.stderr)["error"]["code"] == "not_found"


def test_a_private_key_is_refused_loudly(installation: Installation) -> None:
    """Nothing of it is printed or kept."""
    campaign_id, key = installation.new_campaign(), installation.new_key()
    result = installation.run("key", "enrol", campaign_id, str(key), "--email", "owner@agency.example")
    assert result.returncode == 1
    assert "private key" in result.stderr
    assert "ssh-keygen" in result.stderr
    assert key.read_text().splitlines()[1] not in result.stderr
    assert installation.postern("key", "list") == []


def test_a_key_belongs_to_one_campaign_unless_the_operator_insists(installation: Installation) -> None:
    """Enrolled, refused for a second campaign, shared on purpose, revoked; all of it on the audit trail."""
    first, second, key = installation.new_campaign(), installation.new_campaign(), installation.new_key()
    enrolled = installation.enrol(first, key)
    arguments = ("key", "enrol", second, f"{key}.pub", "--email", "other@agency.example")
    refused = installation.run(*arguments, "--json")
    assert json.loads(refused.stderr)["error"]["code"] == "key_of_another_campaign"
    installation.postern(*arguments, "--shared")
    ambiguous = installation.run("key", "revoke", enrolled["fingerprint"], "--json")
    assert json.loads(ambiguous.stderr)["error"]["code"] == "key_ambiguous"
    revoked = installation.postern("key", "revoke", enrolled["fingerprint"], "--campaign", first, "--reason", "moved")
    assert (revoked["id"], revoked["status"]) == (enrolled["id"], "revoked")
    trail = installation.postern("key", "audit", "--campaign", first)
    assert [entry["action"] for entry in trail] == ["key.revoked", "key.enrolled", "campaign.created"]
    assert trail[0]["detail"]["reason"] == "moved"


def test_a_dry_run_judges_as_an_upload_would(installation: Installation) -> None:
    """Exit status 0 or 1, the same findings and the same report, and nothing is kept."""
    campaign_id = installation.new_campaign()
    good = installation.write("recipient,language,recipient_name,topic\n6591234567,english,Ann,passport\n", "good.csv")
    bad = installation.write("recipient,language,recipient_name,topic\n91234567,englsh,Ann,passport\n", "bad.csv")
    report = installation.folder / "report.csv"
    assert installation.postern("check", str(good), "--campaign", campaign_id)["isValid"] is True
    refused = installation.run("check", str(bad), "--campaign", campaign_id, "--report", str(report), "--json")
    assert refused.returncode == 1
    document = json.loads(refused.stdout)
    assert (document["numRows"], document["numErrors"], document["report"]) == (1, 2, str(report))
    assert "put 65 in front (6591234567); language" in report.read_text(encoding="utf-8-sig")
    for_people = installation.run("check", str(bad), "--campaign", campaign_id)
    assert "would be rejected: 2 errors in 1 of 1 rows" in for_people.stdout
    assert installation.postern("upload", "list") == []


def test_a_file_over_the_limit_fails_its_dry_run_too(installation: Installation) -> None:
    """With the limit in the message."""
    campaign_id = installation.new_campaign()
    huge = installation.write(b"x" * 30_000_000, "huge.csv")
    result = installation.run("check", str(huge), "--campaign", campaign_id)
    assert result.returncode == 1
    assert "must be smaller than 30,000,000" in result.stderr


def test_ids_are_never_broken_by_a_narrow_terminal(installation: Installation) -> None:
    """What people copy has to be whole."""
    campaign_id = installation.new_campaign()
    key = installation.enrol(campaign_id, installation.new_key())
    installation.environ["COLUMNS"] = "40"
    printed = installation.run("key", "list").stdout
    for whole in (campaign_id, key["id"], key["fingerprint"]):
        assert whole in printed


def test_the_demo_plays_to_its_end(installation: Installation) -> None:
    """Exit status 0 in under a minute, and it shows both mails and the report."""
    result = installation.run("demo", "--home", str(installation.folder / "demo"))
    assert result.returncode == 0, result.stdout + result.stderr
    for expected in ('{"isValid":true', '{"isValid":false', "57 success", "3 failure", "Error Reason", "exit status 0"):
        assert expected in result.stdout
