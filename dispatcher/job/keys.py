"""Every key of job and device files: what is read, what LAVA knows and this tool skips, what it refuses.

LAVA's keys are those of its schema (``lava_common/schemas``, release 2023.01) and, in actions, those that its
dispatcher reads and its documentation shows besides. A key is refused where leaving it out would change what the
job does or what its results say.
"""

from __future__ import annotations

from typing import Final

from dispatcher.job.yamlfile import Keys

_IN_THE_ROLE = "in a MultiNode job it stands in each role, under protocols: lava-multinode: roles:"

JOB: Final = Keys(
    "",
    used=frozenset(("job_name", "timeouts", "protocols", "actions", "secrets")),
    skipped=frozenset(("visibility", "priority", "metadata", "notify", "reboot_to_fastboot", "compatibility")),
    refused=dict.fromkeys(("device_type", "context", "environment", "tags"), _IN_THE_ROLE),
)

TIMEOUTS: Final = Keys(
    "timeouts",
    used=frozenset(("job", "action", "connection")),
    skipped=frozenset(("actions", "connections", "queue")),
)

PROTOCOLS: Final = Keys(
    "protocols",
    used=frozenset(("lava-multinode",)),
    skipped=frozenset(("lava-lxc", "lava-vland", "lava-xnbd")),
)

MULTINODE: Final = Keys("lava-multinode", used=frozenset(("roles", "timeout")))

ROLE: Final = Keys(
    "role",
    used=frozenset(
        (
            *("device_type", "count", "timeout", "essential", "environment"),
            *("request", "expect_role", "connection", "host_role", "context"),
        )
    ),
    skipped=frozenset(("tags",)),
)

CONTEXT: Final = frozenset(("test_character_delay", "lava_test_results_dir"))
"""What of a role's ``context`` is used. What else may stand there depends on the lab."""

ACTION_PROTOCOLS: Final = Keys(
    "protocols",
    used=frozenset(("lava-multinode",)),
    # Where LAVA's example of a secondary connection has its timeout, and LAVA does not look for it.
    skipped=PROTOCOLS.skipped | {"timeout"},
)

REQUEST: Final = Keys(
    "a request",
    used=frozenset(("request", "messageID", "message", "role", "timeout")),
    skipped=frozenset(("action", "poll_delay")),
)

_ACTION = frozenset(("failure_retry", "failure_retry_interval", "timeouts", "name"))

_DEPLOY = """
    apply-overlay arguments authorize connection connection-namespace context deployment_data device docker download
    dtb environment failure_retry failure_retry_interval firmware format image images initrd iso kernel modules name
    namespace nbdroot nfsrootfs overlays packages partition persistent_nfs postprocess preseed ramdisk
    recovery_image reboot repeat root_partition rootfs tee timeout timeouts to tool type uefi uniquify writer
"""

DEPLOY: Final = Keys("deploy", used=frozenset(("role", "protocols", "os")), skipped=frozenset(_DEPLOY.split()))

_BOOT = """
    arguments boot_finished boot_message boot_part bootloader command commands connection console_string container
    container_name context deploy docker downloads-namespace dtb enter-commands expect_shell extra_kernel_args
    failure_message feedbacks image initrd kernel kernel-config kernel_type license_variable line_separator media
    method on_panic options parameters post_unmount_delay pre_os_command pre_power_command ramdisk ramdisk_type
    root_uuid schroot shell_menu skip_autoremount_wait soft_reboot ssh transfer_overlay type usb_mass_device
    use_bootscript use_telnet version_args version_string
"""

BOOT: Final = Keys(
    "boot",
    used=frozenset(
        ("role", "timeout", "prompts", "auto_login", "reset", "protocols", "namespace", "connection-namespace")
    ),
    skipped=_ACTION | frozenset(("repeat", *_BOOT.split())),
)

TEST: Final = Keys(
    "test",
    used=frozenset(
        (
            *("role", "timeout", "definitions", "monitors", "interactive"),
            *("lava-multinode", "protocols", "repeat"),
            *("namespace", "connection-namespace"),
        )
    ),
    skipped=_ACTION | frozenset(("connection", "downloads-namespace")),
    refused={
        "docker": "no container is started for a test; "
        "give the role a device whose console is one: {command: docker run -it IMAGE sh}"
    },
)

MONITOR: Final = Keys("monitors", used=frozenset(("name", "start", "end", "pattern", "fixupdict", "expected")))

INTERACTIVE: Final = Keys("interactive", used=frozenset(("name", "prompts", "echo", "script")))

SCRIPT: Final = Keys(
    "script",
    used=frozenset(
        (
            *("command", "delay", "lava-send", "lava-sync", "lava-wait", "lava-wait-all"),
            *("name", "wait_for_prompt", "successes", "failures"),
        )
    ),
)

SUCCESS: Final = Keys("successes", used=frozenset(("message",)))

FAILURE: Final = Keys("failures", used=frozenset(("message", "exception", "error")))

TEST_MULTINODE: Final = Keys("test: lava-multinode", used=frozenset(("timeout",)))

COMMAND: Final = Keys(
    "command",
    used=frozenset(("role", "name", "timeout", "protocols", "namespace", "connection-namespace")),
    skipped=_ACTION | {"repeat"},
)

ACTIONS: Final = Keys(
    "actions",
    used=frozenset(("deploy", "boot", "test", "command")),
    refused={
        "repeat": "write the actions as often as they shall run",
    },
)

DEFINITION: Final = Keys(
    "definitions",
    used=frozenset(
        (
            *("name", "from", "repository", "path", "branch", "revision", "compression"),
            *("params", "parameters", "skip_install", "lava-signal", "expected"),
        )
    ),
    skipped=frozenset(("history", "shallow")),
)

TESTDEF: Final = Keys(
    "a test definition",
    used=frozenset(("metadata", "install", "params", "parameters", "run", "parse", "expected")),
    lenient=True,
)
"""Old definitions hold keys of a LAVA before this one's, and LAVA has never complained of them."""

PARSE: Final = Keys("parse", used=frozenset(("pattern", "fixupdict")), lenient=True)

GIT_REPO: Final = Keys(
    "git-repos", used=frozenset(("url", "branch", "destination")), skipped=frozenset(("skip_by_default",))
)

RUN: Final = Keys("run", used=frozenset(("steps",)), lenient=True)

INSTALLERS: Final = frozenset(("deps", "keys", "sources", "git-repos"))
"""What ``install:`` may hold in LAVA besides steps. ``deps-debian`` and the like belong to ``deps``."""

SKIP_INSTALL: Final = INSTALLERS | {"steps", "all"}

AUTO_LOGIN: Final = Keys(
    "auto_login",
    used=frozenset(("login_prompt", "username", "password_prompt", "password", "login_commands")),
)

DEVICE_FILE: Final = Keys("", used=frozenset(("devices",)))

LINE_KEYS: Final = ("dtr", "rts", "hupcl")
"""Options of a console that may stand beside it too, as in LAVA labs they are the board's and not the port's."""

DEVICE: Final = Keys(
    "device",
    used=frozenset(
        (
            *("device_type", "count", "console", "prompts", "auto_login", "commands", "character_delay"),
            *("environment", "lava_test_sh_cmd", "lava_test_results_dir", "console_loglevel", *LINE_KEYS),
        )
    ),
    skipped=frozenset(("tags",)),
)

COMMANDS: Final = Keys(
    "commands",
    used=frozenset(("power_on", "power_off", "hard_reset", "users")),
    skipped=frozenset(("connect", "connections", "soft_reboot", "pre_power_command", "pre_os_command")),
)

USER_COMMAND: Final = Keys("users", used=frozenset(("do", "undo")))
