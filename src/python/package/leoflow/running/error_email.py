"""Sends the e-mail of a failed or retried task, as Airflow does for a task with `email`.

The mail server is the connection `smtp_default`, or the one that AIRFLOW__EMAIL__EMAIL_CONN_ID names; without that
connection, the settings AIRFLOW__SMTP__*. The defaults of both are those of Airflow.
<https://airflow.apache.org/docs/apache-airflow/stable/howto/email-config.html>"""

from __future__ import annotations

import os

from leoflow.authoring.connection import Connection
from leoflow.common.exceptions import AirflowException, AirflowNotFoundException
from leoflow.common.hints.commands import command
from leoflow.common.settings.airflow_settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import smtplib
    from typing import Any


class MailServer:
    """A mail server and how to log in; `timeout` in seconds."""

    def __init__(self, host, port, login, password, sender, is_ssl, starts_tls, verifies, timeout):
        self.host, self.port, self.login, self.password, self.sender = host, port, login, password, sender
        self.is_ssl, self.starts_tls, self.verifies, self.timeout = is_ssl, starts_tls, verifies, timeout

    @classmethod
    def configured(cls) -> MailServer:
        """Raises AirflowException if neither the connection nor the settings name a server."""
        name = setting("email", "email_conn_id", "smtp_default")
        try:
            return cls.of_connection(Connection.get(name))
        except AirflowNotFoundException:
            host = setting("smtp", "smtp_host", "")
        if not host:
            example = command(f"connections add {name} --conn-type smtp --conn-host HOST")
            raise AirflowException(f"no mail server is known: create the connection {name!r} (`{example}`), "
                                   "or set AIRFLOW__SMTP__SMTP_HOST")
        is_ssl = setting("smtp", "smtp_ssl", False, bool)
        return cls(host, setting("smtp", "smtp_port", 25, int), setting("smtp", "smtp_user", ""), setting("smtp", "smtp_password", ""),
                   setting("smtp", "smtp_mail_from", ""), is_ssl, setting("smtp", "smtp_starttls", True, bool) and not is_ssl,
                   setting("email", "ssl_context", "default") != "none", setting("smtp", "smtp_timeout", 30, int))

    @classmethod
    def of_connection(cls, connection: Connection) -> MailServer:
        extra = connection.extra_dejson
        is_ssl = not as_bool(extra.get("disable_ssl"))
        starts_tls = not is_ssl and not as_bool(extra.get("disable_tls"))
        return cls(connection.host, connection.port or 0, connection.login, connection.password, extra.get("from_email"), is_ssl,
                   starts_tls, extra.get("ssl_context") != "none", int(extra.get("timeout") or 30))

    def connect(self) -> smtplib.SMTP:
        import smtplib
        import ssl

        context = ssl.create_default_context() if self.verifies else None
        if self.is_ssl:
            client = smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        else:
            client = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.starts_tls:
            client.starttls(context=context)
        if self.login and self.password:
            client.login(self.login, self.password)
        return client


def setting(section: str, key: str, default: Any, kind: type = str) -> Any:
    return Setting(section, key, default, kind).value()


def as_bool(value):
    return str(value or "").lower() in ("true", "1", "t")


def addresses(email: Any) -> list[str]:
    """Returns the addresses of an `email` argument: a text, where `,` or `;` separates them, or several texts."""
    import re

    texts = [email] if isinstance(email, str) else email
    return [address for text in texts for address in re.split(r"[,;\s]+", text) if address]


def rendered(key, task, context):
    """Returns the text of the template file that a setting names; an empty text without such a file."""
    path = setting("email", key, "")
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return task.render_template(file.read(), context)


def send(task: Any, context: Any) -> None:
    """Sends the e-mail about the exception in `context`. Raises any error, for example if no mail server is known."""
    import html
    from email.message import EmailMessage

    ti, exception = context["ti"], html.escape(str(context.get("exception"))).replace("\n", "<br>")
    own = {**context, "exception_html": exception, "try_number": ti.try_number, "max_tries": ti.max_tries}
    server, to = MailServer.configured(), addresses(task.email)
    message = EmailMessage()
    message["Subject"] = " ".join(rendered("subject_template", task, own).split()) or f"Airflow alert: {ti}"
    message["From"] = setting("email", "from_email", "") or server.sender or "airflow@airflow"
    message["To"] = ", ".join(to)
    message.set_content(rendered("html_content_template", task, own) or (
        f"Try {ti.try_number} out of {ti.max_tries + 1}<br>Exception:<br>{exception}<br>"
        f'Log: <a href="{html.escape(ti.log_url)}">Link</a><br>Host: {ti.hostname}<br>'), subtype="html")
    with server.connect() as client:
        client.send_message(message, to_addrs=to)
