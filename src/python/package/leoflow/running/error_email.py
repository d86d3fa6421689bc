"""Sends the e-mail of a failed or retried task, as Airflow does for a task with `email`.

The mail server is the connection `smtp_default`, or the one that AIRFLOW__EMAIL__EMAIL_CONN_ID names; without that
connection, the settings AIRFLOW__SMTP__*. AIRFLOW__EMAIL__EMAIL_BACKEND may name a function that sends instead.
<https://airflow.apache.org/docs/apache-airflow/stable/howto/email-config.html>"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from leoflow.authoring.connection import Connection
from leoflow.common.exceptions import AirflowException, AirflowNotFoundException
from leoflow.common.hints.commands import command
from leoflow.common.settings.airflow_settings import DEFAULT_BACKEND, TRUE, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import smtplib
    from typing import Any

# Time limits of each answer, as in Airflow, and of sending an e-mail, seconds. The try ends only afterwards.
TIMEOUT, LIMIT = 30, 45
DEFAULT_SENDER = "airflow@airflow"


@dataclass
class MailServer:
    host: str
    # 0 for the protocol's own.
    port: int
    login: str | None
    password: str | None
    # The address in `From`.
    sender: str | None
    # TLS from the start, or from a command on; with a check of the server's certificate.
    is_ssl: bool
    starts_tls: bool
    is_verified: bool
    # Time limit of each answer, seconds.
    timeout: float
    # Attempts after a lost connection.
    retries: int = 0

    @classmethod
    def configured(cls) -> MailServer:
        """Raises AirflowException if neither the connection nor the settings name a server."""
        name = connection_id()
        try:
            return cls.of_connection(Connection.get(name))
        except AirflowNotFoundException:
            host = setting("smtp", "smtp_host", "")
        if not host:
            example = command(f"connections add {name} --conn-type smtp --conn-host HOST")
            raise AirflowException(f"no mail server is known: create the connection {name!r} (`{example}`), "
                                   "or set AIRFLOW__SMTP__SMTP_HOST")
        is_ssl = setting("smtp", "smtp_ssl", False, bool)
        return cls(
            host=host, port=setting("smtp", "smtp_port", 25, int), login=setting("smtp", "smtp_user", ""),
            password=setting("smtp", "smtp_password", ""), sender=setting("smtp", "smtp_mail_from", ""), is_ssl=is_ssl,
            starts_tls=setting("smtp", "smtp_starttls", True, bool) and not is_ssl,
            is_verified=setting("email", "ssl_context", "default") != "none",
            timeout=setting("smtp", "smtp_timeout", TIMEOUT, int),
        )

    @classmethod
    def of_connection(cls, connection: Connection) -> MailServer:
        extra = connection.extra_dejson
        if extra.get("auth_type", "basic") != "basic":
            raise AirflowException(f"the connection {connection.conn_id!r} has the auth_type {extra['auth_type']!r}: only Airflow's smtp "
                                   "provider has it")
        is_ssl = not as_bool(extra.get("disable_ssl"))
        retries = extra.get("retry_limit")
        return cls(
            host=connection.host, port=connection.port or 0, login=connection.login, password=connection.password,
            sender=extra.get("from_email"), is_ssl=is_ssl, starts_tls=not is_ssl and not as_bool(extra.get("disable_tls")),
            is_verified=extra.get("ssl_context") != "none", timeout=float(extra.get("timeout") or TIMEOUT),
            retries=5 if retries is None else int(retries),
        )

    def connect(self) -> smtplib.SMTP:
        import smtplib
        import ssl

        # smtplib checks no certificate without a context.
        context = ssl.create_default_context() if self.is_verified else None
        options = {"context": context} if self.is_ssl else {}
        kind = smtplib.SMTP_SSL if self.is_ssl else smtplib.SMTP
        for attempt in range(self.retries + 1):
            try:
                client = kind(self.host, self.port, timeout=self.timeout, **options)
                break
            except smtplib.SMTPServerDisconnected:
                if attempt == self.retries:
                    raise
        if self.starts_tls:
            client.starttls(context=context)
        if self.login and self.password:
            client.login(self.login, self.password)
        return client


def setting(section: str, key: str, default: Any, kind: type = str) -> Any:
    return Setting(section, key, default, kind).value()


def connection_id():
    return setting("email", "email_conn_id", "smtp_default")


def as_bool(value):
    return str(value or "").lower() in TRUE


def backend():
    """Returns the function that the settings name, or None for Airflow's own."""
    from importlib import import_module

    module, _, name = setting("email", "email_backend", DEFAULT_BACKEND).rpartition(".")
    return None if f"{module}.{name}" == DEFAULT_BACKEND else getattr(import_module(module), name)


def check() -> None:
    """Raises an error if e-mails cannot be sent, because no mail server is known or the settings are wrong."""
    if backend() is None:
        MailServer.configured()


def addresses(email: Any) -> list[str]:
    """Returns the addresses of an `email` argument: a text, where `,` or `;` separates them, or several texts."""
    import re

    texts = re.split(r"[,;]", email) if isinstance(email, str) else email
    return [text.strip() for text in texts if text.strip()]


def rendered(key, task, context):
    """Returns the text of the template file that a setting names; an empty text without such a file."""
    path = setting("email", key, "")
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return task.render_template(file.read(), context)


def send(task: Any, context: Any) -> None:
    """Sends the e-mail about the exception in `context`. Raises any error, for example if no mail server is known or
    none answers within LIMIT."""
    import html

    ti, exception = context["ti"], html.escape(str(context.get("exception"))).replace("\n", "<br>")
    own = {**context, "exception_html": exception, "try_number": ti.try_number, "max_tries": ti.max_tries}
    subject = " ".join(rendered("subject_template", task, own).split()) or f"Airflow alert: {ti}"
    url = html.escape(ti.log_url)
    body = rendered("html_content_template", task, own) or (
        f"Try {ti.try_number} out of {ti.max_tries + 1}<br>Exception:<br>{exception}<br>"
        f'Log: <a href="{url}">Link</a><br>Host: {ti.hostname}<br>Mark success: <a href="{url}">Link</a><br>')
    to, sender = addresses(task.render_template(task.email, own)), task.render_template(setting("email", "from_email", ""), own)
    function = backend()
    with time_limit():
        if function is not None:
            function(to, subject, body, conn_id=connection_id(), from_email=sender or DEFAULT_SENDER)
        else:
            send_by_smtp(to, subject, body, sender)


def send_by_smtp(to, subject, body, sender):
    from email.message import EmailMessage
    from email.utils import localtime, make_msgid

    server, message = MailServer.configured(), EmailMessage()
    message["Subject"], message["To"], message["Date"], message["Message-ID"] = subject, ", ".join(to), localtime(), make_msgid()
    message["From"] = sender or server.sender or DEFAULT_SENDER
    message.set_content(body, subtype="html")
    client = server.connect()
    try:
        client.send_message(message, to_addrs=to)
        client.quit()
    finally:
        client.close()


@contextmanager
def time_limit():
    """Raises AirflowException in the code within after LIMIT, also while it waits for a name server. Only the main thread
    has the limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def expire(*_):
    # No OSError, which smtplib takes for a lost connection.
    raise AirflowException(f"the e-mail could not be sent within {LIMIT} seconds")
