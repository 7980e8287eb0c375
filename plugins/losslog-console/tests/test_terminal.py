"""A real terminal: what it shows while and after a script runs."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
pytest.importorskip("pty")

RUN = """
run = Driver(folder)
run.start(epochs=3, steps_per_epoch=100)
for step in range(30):
    redraw()
    run.batch(step, 1)
"""


def test_progress_shows_epoch_batches_eta_and_losses(terminal):
    shown = terminal(RUN)
    status, losses = shown.lines[-2:]
    assert status.startswith("Epoch 1/3  " + "━" * 7 + "─" * 17)
    assert "30/100  2.0 it/s  ETA 0:35, run 2:15" in status
    assert losses == "total 0.823  box_reg 0.123  classifier 0.146  mask 0.389  objectness 0.057  rpn_box_reg 0.109"


def test_progress_is_gone_at_the_end(terminal):
    shown = terminal(RUN + "run.epoch(1, epochs=3)\nrun.end()\nprint('done')\n")
    assert shown.lines[0] == "Epoch 1/3"
    assert shown.lines[-1] == "done"
    assert not any("it/s" in line for line in shown.lines)


def test_the_cursor_is_never_hidden(terminal):
    shown = terminal(RUN)
    assert "\x1b[?25l" not in shown.output


def test_the_epoch_length_is_learnt(terminal):
    shown = terminal("""
        run = Driver(folder)
        run.start(epochs=3)
        for step in range(10):
            run.batch(step, 1)
        run.epoch(1, epochs=3)
        for step in range(10, 14):
            redraw()
            run.batch(step, 2)
    """)
    assert "Epoch 2/3" in shown.lines[-2]
    assert "4/10" in shown.lines[-2]


def test_without_an_epoch_length_batches_are_counted(terminal):
    shown = terminal("""
        run = Driver(folder)
        run.start(epochs=None)
        for step in range(10):
            redraw()
            run.batch(step, 1)
    """)
    assert shown.lines[-2].startswith("Epoch 1  10 batches  2.0 it/s")


def test_long_prints_come_out_byte_by_byte(terminal):
    shown = terminal(RUN + "print('x y ' * 100)\nrun.end()\n")
    assert "x y " * 100 in shown.output


def test_prints_on_every_way_stay_whole_above_the_progress(terminal):
    shown = terminal("""
        before, held = logging.StreamHandler(), sys.stderr
        log = logging.getLogger("mine")
        log.addHandler(before)
        run = Driver(folder)
        run.start(epochs=3, steps_per_epoch=100)
        for step in range(60):
            redraw()
            run.batch(step, 1)
            print(f"print {step}")
            log.warning("log %d", step)
            sys.stderr.write(f"err {step}\\n")
            held.write(f"held {step}\\n")
        run.end()
    """)
    assert shown.lines == [
        line for step in range(60) for line in (f"print {step}", f"log {step}", f"err {step}", f"held {step}")
    ]


def test_a_raw_write_begins_on_a_clean_line(terminal):
    shown = terminal(RUN + "os.write(2, b'from C\\r\\n')\nredraw()\nrun.batch(30, 1)\nrun.end()\n")
    assert shown.lines == ["from C"]


def test_an_incomplete_line_keeps_the_progress_away(terminal):
    shown = terminal(
        RUN + "print('loading', end='', flush=True)\nredraw()\nrun.batch(30, 1)\nprint(' done')\nrun.end()\n"
    )
    assert shown.lines == ["loading done"]


def test_a_block_does_not_join_an_incomplete_line(terminal):
    shown = terminal(RUN + "print('loading', end='', flush=True)\nrun.epoch(1, 0.5, epochs=3)\nrun.end()\n")
    assert shown.lines[:2] == ["loading", "Epoch 1/3"]


def test_streams_are_given_back(terminal):
    shown = terminal("""
        out, err = sys.stdout, sys.stderr
        run = Driver(folder)
        run.start()
        assert "write" in vars(out) and "write" in vars(err)
        run.end()
        assert (sys.stdout, sys.stderr) == (out, err)
        assert "write" not in vars(out) and "write" not in vars(err)
        print("as before")
    """)
    assert shown.lines == ["as before"]


def test_a_stream_wrapped_again_meanwhile_goes_on(terminal):
    shown = terminal("""
        run = Driver(folder)
        run.start()
        ours = sys.stdout.write
        sys.stdout.write = lambda text: ours(text.upper())
        run.end()
        print("loud")
    """)
    assert shown.lines == ["LOUD"]


def test_a_stream_that_cannot_be_wrapped_gets_blocks_only(terminal):
    shown = terminal("""
        class Slots:
            __slots__ = ("inner",)
            def __init__(self, inner): self.inner = inner
            def write(self, text): return self.inner.write(text)
            def flush(self): self.inner.flush()
            def isatty(self): return True
            def fileno(self): return self.inner.fileno()
            encoding = "utf-8"
        sys.stdout = Slots(sys.stdout)
        run = Driver(folder)
        run.start()
        for step in range(10):
            redraw()
            run.batch(step, 1)
        run.epoch(1, 0.5)
        run.end()
    """)
    assert shown.output.replace("\r\n", "\n") == "Epoch 1/20\n📊 Training Loss: 0.5000\n"


def test_a_forked_child_prints_and_ends(terminal):
    shown = terminal("""
        run = Driver(folder)
        run.start()
        with run.plugin._footer._lock:
            child = os.fork()
            if child == 0:
                print("from the child", flush=True)
                os._exit(0)
        os.waitpid(child, 0)
        run.end()
    """)
    assert shown.lines == ["from the child"]


def test_many_components_stand_side_by_side(terminal):
    shown = terminal("run = Driver(folder)\nrun.epoch(1, {f'loss_{i:02}': i / 100 for i in range(30)})\n")
    assert shown.lines[3] == "   loss_00: 0.0000   loss_10: 0.1000   loss_20: 0.2000"
    assert len(shown.lines) == 3 + 10


def test_a_narrow_terminal_is_not_overrun(terminal):
    shown = terminal(RUN, columns=40)
    assert len(shown.lines) == 3  # the free line of the cursor, and two
    assert max(map(len, shown.lines)) < 40


def test_alerts_are_seen_above_the_progress_and_stay_below_it(terminal):
    shown = terminal(RUN + "run.alert('loss_mask stalls', 'lower the rate')\nredraw()\nrun.batch(30, 1)\n")
    assert shown.lines[0].endswith("Warning: loss_mask stalls (plateau)")
    assert shown.lines[1] == "   lower the rate"
    assert "31/100" in shown.lines[-3]
    assert shown.lines[-1].startswith("! loss_mask stalls")


def test_colours_only_where_wanted(terminal):
    assert "\x1b[1;33m" in terminal(RUN + "run.alert('x')\n").output
    assert "\x1b[1;33m" not in terminal(RUN + "run.alert('x')\n", NO_COLOR="1").output


@pytest.mark.parametrize(
    "environ", [{"CI": "true"}, {"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}, {"TTY_INTERACTIVE": "0"}], ids=str
)
def test_nobody_watches(terminal, environ):
    shown = terminal(RUN + "run.epoch(1, 0.5, epochs=3)\nrun.end()\n", **environ)
    assert shown.output.replace("\r\n", "\n") == "Epoch 1/3\n📊 Training Loss: 0.5000\n"


def test_progress_can_be_asked_for_in_ci(terminal):
    assert "30/100" in terminal(RUN.replace("folder", "folder, progress=True"), CI="true").output


def test_progress_can_be_refused(terminal):
    assert terminal(RUN.replace("folder", "folder, progress=False")).output == ""


def test_an_ascii_terminal_gets_an_ascii_bar(terminal):
    shown = terminal(RUN, PYTHONIOENCODING="ascii")
    assert "  #######.................  30/100" in shown.lines[-2]


def test_an_exception_is_readable(terminal):
    shown = terminal(
        RUN + "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\nrun.end()\n"
    )
    assert shown.lines[0] == "Traceback (most recent call last):"
    assert shown.lines[-1].startswith("ZeroDivisionError")


def test_the_terminal_is_whole_after_a_kill(terminal):
    shown = terminal(RUN + "os.kill(os.getpid(), 9)\n", exit="killed")
    assert not shown.cursor_hidden
    assert shown.screen.margins is None
