"""The mark is in what is written, and what was done to a file afterwards is told."""

import contextlib
import datetime
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.container import OutputContainer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

import atldiff
from atldiff.cli import main
from atldiff.errors import InputError, OutputError
from atldiff.media import signing
from atldiff.media.jpeg import encode_jpeg
from atldiff.media.provenance import (
    DAMAGED,
    DIGITAL_SOURCE_TYPE,
    INDEX,
    INTACT,
    MEDIA_DATA,
    METADATA,
    SIGNATURE,
    STATEMENTS,
    UNMARKED,
    _boxes,
    _read_manifest,
    read_provenance,
    sign_mp4,
)
from atldiff.media.signing import CERTIFICATE_VARIABLE, KEY_VARIABLE, SigningIdentity, own_identity, signing_folder
from atldiff.media.writer import VideoWriter
from atldiff.results import TalkingHead
from atldiff.speech.waveform import Speech
from media_files import sine, write_video

torch.set_num_threads(1)


def write(path: Path, seconds: int = 1, identity: SigningIdentity | None = None) -> Path:
    random = np.random.default_rng(0)
    speech = Speech.from_array(sine(seconds, 16000), 16000)
    with VideoWriter(path, 64, 48, 25, speech, identity=identity) as writer:
        for _ in range(25 * seconds):
            writer.write(random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("marked") / "out.mp4", seconds=4)


def boxes(path: Path) -> dict[bytes, tuple[int, int]]:
    with path.open("rb") as stream:
        return {name: (begin, end) for name, begin, end in _boxes(stream)}


def changed(video: Path, path: Path, at: int) -> Path:
    """A copy with one bit of the byte ``at`` turned."""
    whole = bytearray(video.read_bytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    return path


def copy_streams(video: Path, path: Path, metadata: bool, until_s: float = np.inf) -> Path:
    """The same packets in a new file."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        streams = {one.index: target.add_stream_from_template(one) for one in source.streams}
        if metadata:
            target.metadata.update(source.metadata)
        for packet in source.demux():
            if packet.dts is not None and packet.dts * packet.time_base < until_s:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return path


def encode_again(video: Path, path: Path, metadata: bool) -> Path:
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        assert isinstance(target, OutputContainer)
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if metadata:
            target.metadata.update(source.metadata)
        for frame in source.decode(video=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def test_what_is_written_is_marked_and_intact(video):
    found = read_provenance(video)
    assert (found.state, found.damaged, found.details) == (INTACT, (), ())
    assert found.source_type == DIGITAL_SOURCE_TYPE
    assert found.software == f"ATL-Diff {atldiff.__version__}"
    assert found.trusted
    made_at = datetime.datetime.fromisoformat(str(found.made_at))
    assert abs(datetime.datetime.now(datetime.UTC) - made_at) < datetime.timedelta(minutes=10)
    assert str(found.signer).startswith("ATL-Diff self-signed ")


def test_the_manifest_says_what_the_specification_asks_for(video):
    with video.open("rb") as stream:
        store = _read_manifest(stream, "video/mp4", "")
    assert store is not None
    manifest = store["manifests"][store["active_manifest"]]
    assertions = {one["label"]: one for one in manifest["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert action["softwareAgent"] == {"name": "ATL-Diff", "version": atldiff.__version__}
    assert assertions["c2pa.actions.v2"]["created"]
    assert manifest["signature_info"].get("time") is None
    success = {one["code"] for one in store["validation_results"]["activeManifest"]["success"]}
    assert {"claimSignature.validated", "assertion.bmffHash.match"} <= success


def test_plain_metadata_says_it_too(video):
    with av.open(str(video)) as container:
        metadata = container.metadata
    assert DIGITAL_SOURCE_TYPE in metadata["comment"]
    assert metadata["keywords"] == "synthetic"
    assert f"ATL-Diff {atldiff.__version__}" in metadata["comment"]


def test_a_marked_file_still_plays(video):
    assert list(boxes(video))[:2] == [b"ftyp", b"uuid"]
    assert list(boxes(video)).index(b"moov") < list(boxes(video)).index(b"mdat")
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 100
    assert Speech.open(video).duration_s == pytest.approx(4.0)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_one_changed_bit_in_picture_or_sound(video, tmp_path, share):
    begin, end = boxes(video)[b"mdat"]
    found = read_provenance(changed(video, tmp_path / "a.mp4", begin + 16 + int(share * (end - begin - 17))))
    assert (found.state, found.damaged) == (DAMAGED, (MEDIA_DATA,))
    assert found.signer


def test_one_changed_bit_in_the_index_or_the_metadata(video, tmp_path):
    for word in (b"mvhd", b"Synthetic media"):
        found = read_provenance(changed(video, tmp_path / "a.mp4", video.read_bytes().index(word) + 14))
        assert (found.state, found.damaged) == (DAMAGED, (INDEX,))


def test_text_that_is_not_text_does_not_stop_the_reader(video, tmp_path):
    whole = bytearray(video.read_bytes())
    whole[bytes(whole).index(b"Synthetic media, made by")] = 0xE9
    spoiled = tmp_path / "spoiled.mp4"
    spoiled.write_bytes(whole)
    found = read_provenance(spoiled)
    assert (found.state, found.damaged) == (DAMAGED, (INDEX,))
    for at in range(*boxes(video)[b"ftyp"]):
        whole = bytearray(video.read_bytes())
        whole[at] ^= 0x80
        spoiled.write_bytes(whole)
        with contextlib.suppress(InputError):
            read_provenance(spoiled)


def test_a_changed_statement_or_signature(video, tmp_path):
    whole = video.read_bytes()
    end = boxes(video)[b"uuid"][1]
    statement_at = whole.index(b"WithTrainedAlgorithmicMedia", 0, end)
    found = read_provenance(changed(video, tmp_path / "a.mp4", statement_at))
    assert (found.state, found.damaged) == (DAMAGED, (STATEMENTS,))
    signature_at = whole.rindex(b"\xf6X\x40", 0, end) + 10  # CBOR: no payload, then 64 bytes
    found = read_provenance(changed(video, tmp_path / "b.mp4", signature_at))
    assert (found.state, found.damaged) == (DAMAGED, (SIGNATURE,))


def test_every_byte_of_the_manifest_matters_or_is_padding(video, tmp_path):
    """No single change makes a file say something else and still pass."""
    honest = read_provenance(video)
    begin, end = boxes(video)[b"uuid"]
    for at in range(begin, end, 61):
        found = read_provenance(changed(video, tmp_path / "a.mp4", at))
        assert found.state != INTACT or found == honest, at


def test_a_file_cut_short(video, tmp_path):
    (tmp_path / "a.mp4").write_bytes(video.read_bytes()[: -video.stat().st_size // 3])
    found = read_provenance(tmp_path / "a.mp4")
    assert (found.state, found.damaged) == (DAMAGED, (MEDIA_DATA,))


def test_the_manifest_of_another_video(video, tmp_path):
    """Taken over from a marked file, it does not fit."""
    other = write(tmp_path / "other.mp4", seconds=2)
    begin, end = boxes(video)[b"uuid"]
    stranger, whole = boxes(other)[b"uuid"], other.read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: stranger[0]] + video.read_bytes()[begin:end] + whole[stranger[1] :])
    assert read_provenance(tmp_path / "a.mp4").state == DAMAGED


@pytest.mark.parametrize("kept", [True, False])
def test_encoded_again_or_copied_or_trimmed(video, tmp_path, kept):
    expected = METADATA if kept else UNMARKED
    copies = [
        encode_again(video, tmp_path / "encoded.mp4", kept),
        copy_streams(video, tmp_path / "copied.mp4", kept),
        copy_streams(video, tmp_path / "trimmed.mp4", kept, until_s=2.0),
    ]
    for path in copies:
        found = read_provenance(path)
        assert (found.state, found.signer, found.trusted) == (expected, None, False), path
        assert bool(found.comment) == kept


def test_the_manifest_cut_out_leaves_the_metadata(video, tmp_path):
    begin, end = boxes(video)[b"uuid"]
    whole = bytearray(video.read_bytes())
    whole[begin + 4 : begin + 8] = b"free"
    whole[begin + 8 : end] = bytes(end - begin - 8)
    (tmp_path / "a.mp4").write_bytes(whole)
    assert read_provenance(tmp_path / "a.mp4").state == METADATA


def test_a_video_that_was_never_marked(tmp_path):
    path = write_video(tmp_path / "a.mp4", np.zeros((5, 48, 64, 3), np.uint8), 25, sine(0.2, 48000), 48000)
    assert read_provenance(path).state == UNMARKED


def test_a_manifest_that_says_something_else_is_no_mark(tmp_path, monkeypatch, capsys):
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    monkeypatch.setattr("atldiff.media.provenance.DIGITAL_SOURCE_TYPE", camera)
    monkeypatch.setattr("atldiff.media.writer.MARK_METADATA", {})
    path = write(tmp_path / "out.mp4")
    found = read_provenance(path)
    assert (found.state, found.damaged, found.source_type) == (UNMARKED, (), camera)
    assert main(["verify", str(path)]) == 5
    said = capsys.readouterr().out
    assert said.startswith("verdict: no mark of synthetic content; it is signed, but says something else\n")
    assert f'signed by: "{found.signer}"' in said
    assert f'says that it is: "{camera}"' in said


def test_what_is_no_mp4(tmp_path, video):
    (tmp_path / "text.mp4").write_text("ftyp" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    for path in (tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "none.mp4", tmp_path):
        with pytest.raises(InputError, match="expected"):
            read_provenance(path)
    with pytest.raises(InputError, match="holds no certificate"):
        read_provenance(video, trust=tmp_path / "text.mp4")


def test_verify_tells_and_exits(video, tmp_path, capsys):
    def verify(path: Path, *more: str) -> tuple[int, str]:
        code = main(["verify", str(path), *more])
        return code, capsys.readouterr().out

    code, said = verify(video)
    assert code == 0
    assert "marked as synthetic, and unchanged" in said
    assert "by one whom you trust: yes" in said
    begin, end = boxes(video)[b"mdat"]
    code, said = verify(changed(video, tmp_path / "a.mp4", (begin + end) // 2))
    assert code == 3
    assert "media data" in said
    code, said = verify(encode_again(video, tmp_path / "b.mp4", metadata=True))
    assert code == 4
    assert "plain metadata" in said
    assert verify(encode_again(video, tmp_path / "c.mp4", metadata=False))[0] == 5
    code, said = verify(video, "--json")
    answer = json.loads(said)
    assert (code, answer["state"], answer["exit_code"], answer["trusted"]) == (0, INTACT, 0, True)
    assert main(["verify", str(tmp_path / "none.mp4")]) == 2


def chain(folder: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, days: int = 30) -> SigningIdentity:
    """A certificate of an authority of its own, named "Studio"."""
    folder.mkdir()
    root_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def certify(name: str, public, is_root: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Authority")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(
                x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )
        if not is_root:
            purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purposes, critical=False)
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root = certify("Authority", root_key.public_key(), is_root=True)
    (folder / "root.pem").write_bytes(root)
    (folder / "chain.pem").write_bytes(certify("Studio", key.public_key(), is_root=False) + root)
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return SigningIdentity(folder / "chain.pem", folder / "key.pem")


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_a_certificate_of_ones_own(tmp_path, video, kind, capsys):
    make = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }
    identity = chain(tmp_path / "studio", make[kind]())
    path = write(tmp_path / "out.mp4", identity=identity)
    found = read_provenance(path)
    assert (found.state, found.signer, found.trusted) == (INTACT, "Studio", False)
    root = tmp_path / "studio" / "root.pem"
    assert read_provenance(path, trust=root).trusted
    assert main(["verify", str(path), "--trust", str(root)]) == 0
    assert main(["verify", str(video), "--trust", str(root)]) == 6
    assert main(["verify", str(path)]) == 0
    assert "anyone can make such a mark" in capsys.readouterr().out


def test_certificates_that_cannot_sign_are_found_before_the_work(tmp_path):
    good = chain(tmp_path / "good", ec.generate_private_key(ec.SECP256R1()))
    other = chain(tmp_path / "other", ec.generate_private_key(ec.SECP256R1()))
    expired = chain(tmp_path / "expired", ec.generate_private_key(ec.SECP256R1()), days=-1)
    odd = chain(tmp_path / "odd", ec.generate_private_key(ec.SECP256K1()))
    secret = tmp_path / "secret.pem"
    loaded = serialization.load_pem_private_key(good.key.read_bytes(), None)
    secret.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    wrong = {
        "does not belong": SigningIdentity(good.certificate, other.key),
        "does not exist": SigningIdentity(tmp_path / "none.pem", good.key),
        "holds no certificate": SigningIdentity(good.key, good.key),
        "holds no private key": SigningIdentity(good.certificate, good.certificate),
        "without a password": SigningIdentity(good.certificate, secret),
        "cannot sign": expired,
        "expected Ed25519": odd,
    }
    before = sorted(tmp_path.iterdir())
    for words, identity in wrong.items():
        with pytest.raises(InputError, match=words):
            VideoWriter(tmp_path / "out.mp4", 64, 48, 25, identity=identity)
    assert sorted(tmp_path.iterdir()) == before


def test_the_users_own_pair_is_private_and_made_once(tmp_path, monkeypatch):
    monkeypatch.delenv(CERTIFICATE_VARIABLE)
    monkeypatch.delenv(KEY_VARIABLE)
    for name in ("HOME", "APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert read_provenance(write(tmp_path / "a.mp4")).trusted
    pair = own_identity()
    assert pair.key.parent == signing_folder()
    assert pair.key.is_relative_to(tmp_path / "home")
    if os.name == "posix":
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
        assert stat.S_IMODE(pair.key.parent.stat().st_mode) == 0o700
    key = pair.key.read_bytes()
    write(tmp_path / "b.mp4")
    assert own_identity().key.read_bytes() == key
    assert sorted(path.name for path in pair.key.parent.parent.iterdir()) == ["signing"]
    monkeypatch.setenv(CERTIFICATE_VARIABLE, str(pair.certificate))
    with pytest.raises(InputError, match="expected both"):
        VideoWriter(tmp_path / "c.mp4", 64, 48, 25)


def test_a_home_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.delenv(CERTIFICATE_VARIABLE)
    monkeypatch.delenv(KEY_VARIABLE)
    (tmp_path / "home").write_text("a file")
    for name in ("HOME", "APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with pytest.raises(OutputError, match=KEY_VARIABLE):
        VideoWriter(tmp_path / "out.mp4", 64, 48, 25)


def test_a_pair_of_a_clock_that_ran_ahead_is_put_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(signing, "_EVER", datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=400))
    ahead = own_identity().certificate.read_bytes()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    new = own_identity().certificate.read_bytes()
    assert new != ahead
    assert own_identity().certificate.read_bytes() == new
    assert read_provenance(write(tmp_path / "v.mp4")).state == INTACT
    (aside,) = signing_folder().parent.glob("signing-*")
    assert (aside / "certificate.pem").read_bytes() == ahead
    assert x509.load_pem_x509_certificate(new).not_valid_before_utc.year == 1970


@pytest.mark.skipif(sys.platform == "win32", reason="names its folder of temporary files otherwise")
def test_no_folder_for_temporary_files_is_needed(tmp_path, monkeypatch, video):
    """More than the library keeps in memory, and it is signed where the environment names no folder that is there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    large = tmp_path / "large.mp4"
    large.write_bytes(video.read_bytes())
    with large.open("ab") as stream:
        stream.write((20 << 20).to_bytes(4, "big") + b"free" + bytes((20 << 20) - 8))
    (tmp_path / "out").mkdir()
    sign_mp4(large, tmp_path / "out" / "signed.mp4", own_identity())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["signed.mp4"]
    assert os.environ["TMPDIR"] == str(tmp_path / "nowhere")


def test_processes_that_start_at_once_share_one_pair(tmp_path):
    home = {name: str(tmp_path / "home") for name in ("HOME", "APPDATA", "XDG_CONFIG_HOME")}
    code = "from atldiff.media.signing import *; print(signing_material(own_identity())[1])"
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **home}, text=True) for _ in range(4)
    ]
    assert len({run.communicate(timeout=60)[0] for run in runs}) == 1
    assert all(run.returncode == 0 for run in runs)


def test_saving_a_video_in_memory(tmp_path):
    frames = np.full((5, 48, 64, 3), 90, np.uint8)
    path = TalkingHead(frames, 25.0, Speech.from_array(sine(0.2, 16000), 16000)).save(tmp_path / "out.mp4")
    assert read_provenance(path).state == INTACT


WITHOUT_NETWORK = ["unshare", "--map-root-user", "--net"]

WRITE_AND_READ = """
    import sys, numpy as np
    from atldiff.media.provenance import read_provenance
    from atldiff.media.writer import VideoWriter
    with VideoWriter(sys.argv[1], 64, 48, 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
    print(read_provenance(sys.argv[1]).state)
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True).returncode != 0,
    reason="cannot take the network away",
)
def test_signing_and_reading_need_no_network(tmp_path):
    command = [*WITHOUT_NETWORK, sys.executable, "-c", textwrap.dedent(WRITE_AND_READ), str(tmp_path / "out.mp4")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{INTACT}\n"


NO_ROOM_TO_SIGN = """
    import resource, sys, numpy as np
    from atldiff.errors import OutputError
    from atldiff.media import writer
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    sign = writer.sign_mp4

    def limited(source, target, *rest):
        size = source.stat().st_size + 500
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        sign(source, target, *rest)

    writer.sign_mp4 = limited
    try:
        with writer.VideoWriter(sys.argv[1], 64, 48, 25) as video:
            for frame in frames:
                video.write(frame)
    except OutputError as error:
        sys.exit(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs limits on the size of files")
def test_a_disk_that_fills_while_signing(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    command = [sys.executable, "-c", textwrap.dedent(NO_ROOM_TO_SIGN), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert f"cannot write {path}: File too large" in result.stderr, result.stderr
    assert path.read_bytes() == b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["out.mp4"]


def test_what_cannot_be_signed(tmp_path, signing_pair):
    (tmp_path / "in.mp4").write_bytes(b"no mp4 at all")
    with pytest.raises(OSError, match="signing failed"):
        sign_mp4(tmp_path / "in.mp4", tmp_path / "out.mp4", signing_pair)


STOPPED_WHILE_SIGNING = """
    import os, signal, sys, numpy as np
    from atldiff.media import provenance
    from atldiff.media.writer import VideoWriter
    sign = provenance._sign

    def stopped(unsigned, signed, identity, kind):
        if kind == "video/mp4":
            os.kill(os.getpid(), signal.SIGINT)
        sign(unsigned, signed, identity, kind)

    provenance._sign = stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with VideoWriter(sys.argv[1], 64, 48, 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_signal_while_signing_is_not_lost(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    command = [sys.executable, "-c", textwrap.dedent(STOPPED_WHILE_SIGNING), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 1)
    assert "KeyboardInterrupt" in result.stderr
    assert path.read_bytes() == b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["out.mp4"]


SIGN_LARGE = """
    import re, sys
    from pathlib import Path
    from atldiff.media.provenance import read_provenance, sign_mp4
    from atldiff.media.signing import default_identity
    peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    before = peak()
    sign_mp4(Path(sys.argv[1]), Path(sys.argv[2]), default_identity())
    found = read_provenance(sys.argv[2])
    print(found.state, peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory in KiB")
def test_signing_takes_constant_memory(tmp_path):
    small = write_video(tmp_path / "a.mp4", np.zeros((5, 48, 64, 3), np.uint8), 25, sine(0.2, 48000), 48000)
    whole = small.read_bytes()
    begin, end = boxes(small)[b"mdat"]
    assert end == boxes(small)[b"moov"][0], "the index is behind the media data, which may grow"
    size = 120 * 2**20
    header = size.to_bytes(4) + b"mdat"
    with (tmp_path / "large.mp4").open("wb") as stream:
        stream.write(whole[:begin] + header + whole[begin + 8 : end])
        stream.seek(begin + size)
        stream.write(whole[end:])
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(SIGN_LARGE),
        *(str(tmp_path / n) for n in ("large.mp4", "b.mp4")),
    ]
    state, grown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert state == INTACT
    assert float(grown) < 60, "MiB"


def test_a_single_picture_says_that_it_is_synthetic() -> None:
    picture = np.zeros((40, 60, 3), dtype=np.uint8)
    picture[:, :30] = (200, 100, 50)
    with Image.open(io.BytesIO(encode_jpeg(picture, quality=95))) as read:
        assert DIGITAL_SOURCE_TYPE in read.info["xmp"].decode()
        assert np.abs(np.asarray(read, dtype=int)[:, :24] - picture[:, :24]).max() < 8
    with Image.open(io.BytesIO(encode_jpeg(picture, longest=30))) as read:
        assert read.size == (30, 20)
