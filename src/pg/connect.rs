//! Connections to PostgreSQL: TLS that verifies, and session settings that every statement relies on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::future::BoxFuture;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::settings::{Database, Tls, Url};
use crate::pg::sqlstate::{self, Disposition};

/// Why there is no usable connection. `Display` never repeats a server's message or the URL.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("could not read file \"{path}\" for {what}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("{0} holds no valid PostgreSQL connection URL")]
    Url(&'static str),
    #[error("{0} names a host that is not this machine, and database.tls is \"disable\"")]
    Plaintext(&'static str),
    #[error("could not use the certificate authorities for TLS")]
    Authorities(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("could not connect to the database as {user} ({code})")]
    Connect { user: String, code: Code, source: Redacted },
    #[error("the database accepted a connection and said nothing for {} s", limit.as_secs())]
    Silent { limit: Duration },
    #[error("could not set up the database session ({code})")]
    Session { code: Code },
}

impl ConnectError {
    /// What an operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "Check that the file exists and that this user may read it.",
            Self::Url(_) => "The form is postgresql://user:password@host:5432/database.",
            Self::Plaintext(_) => {
                "Set database.tls to \"verify-full\"; plain text is for sockets and loopback."
            }
            Self::Authorities(_) => {
                "Set database.ca_file to a PEM file with the authority that signed the server's certificate."
            }
            Self::Connect { .. } => {
                "Check host, port, user and password, and that the server accepts TLS for this host."
            }
            Self::Silent { .. } => "See whether the server, or a proxy before it, hangs.",
            Self::Session { .. } => {
                "Connect straight to the server, not through a proxy that shares sessions."
            }
        }
    }
}

/// A SQLSTATE, or how the connection failed where the server named none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    State(String),
    /// The connection is gone; whether the last statement took effect is unknown.
    Closed,
    /// The client library refused: a type or a protocol error.
    Client,
}

impl Code {
    pub fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(state) = error.code() {
            return Self::State(state.code().to_owned());
        }
        let io = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
        if error.is_closed() || io { Self::Closed } else { Self::Client }
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::State(code) => sqlstate::disposition(code),
            Self::Closed => Disposition::Reconnect,
            Self::Client => Disposition::Halt,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(code) => write!(f, "SQLSTATE {code}"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Client => f.write_str("refused by the client library"),
        }
    }
}

/// A client error without what the server said: its messages and details carry row values.
#[derive(Debug)]
pub struct Redacted(String);

impl Redacted {
    pub fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self(format!(
                "{} {}{}{}",
                db.severity(),
                db.code().code(),
                db.table().map(|table| format!(", table \"{table}\"")).unwrap_or_default(),
                db.constraint().map(|name| format!(", constraint \"{name}\"")).unwrap_or_default(),
            )),
            // No server spoke, so this is the client library's or the operating system's text.
            None => Self(match std::error::Error::source(error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            }),
        }
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Redacted {}

/// Opens connections; the password and certificates are read again for each.
#[derive(Debug, Clone)]
pub struct Connector {
    settings: Database,
    application: String,
}

impl Connector {
    /// `application` becomes `application_name`, so that a person finds us in `pg_stat_activity`.
    pub fn new(settings: &Database, application: impl Into<String>) -> Self {
        Self { settings: settings.clone(), application: application.into() }
    }

    /// Opens a connection of its own to the primary, with the session that all statements expect.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses us, or cannot prove who it is.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let config = self.config()?;
        let tls = self.tls()?;
        let user = config.get_user().unwrap_or_default().to_owned();
        let limit = self.settings.connect_timeout * 2;
        let opened = tokio::time::timeout(limit, open(&config, tls)).await;
        let opened = opened.map_err(|_| ConnectError::Silent { limit })?;
        let (client, _) = opened.map_err(|error| ConnectError::Connect {
            user,
            code: Code::of(&error),
            source: Redacted::of(&error),
        })?;
        client
            .batch_execute(&self.session())
            .await
            .map_err(|error| ConnectError::Session { code: Code::of(&error) })?;
        Ok(client)
    }

    /// The pool for control statements; writers hold connections of their own.
    pub fn pool(&self) -> Pool {
        let connect = PoolConnect(self.clone());
        let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        // The manager asks for a config, but every connection comes from `PoolConnect`.
        let manager = Manager::from_connect(Config::new(), connect, config);
        Pool::builder(manager)
            .max_size(self.settings.control_connections)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(self.settings.connect_timeout))
            .create_timeout(Some(self.settings.connect_timeout * 2))
            .recycle_timeout(Some(self.settings.connect_timeout))
            .build()
            .expect("the pool's time-outs have a runtime")
    }

    fn config(&self) -> Result<Config, ConnectError> {
        let (text, from) = match &self.settings.url {
            Url::Given(secret) => (secret.expose().to_owned(), "database.url"),
            Url::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConnectError::File {
                    what: "database.url_file",
                    path: path.display().to_string(),
                    source,
                })?;
                (text.trim().to_owned(), "the file of database.url_file")
            }
        };
        let mut config = Config::from_str(&text).map_err(|_| ConnectError::Url(from))?;
        // Again at each connect: the file may have come to name another host.
        if self.settings.tls == Tls::Disable && !crate::config::is_local(&text) {
            return Err(ConnectError::Plaintext(from));
        }
        config
            .application_name(&self.application)
            .connect_timeout(self.settings.connect_timeout)
            .keepalives_idle(Duration::from_secs(10))
            .tcp_user_timeout(Duration::from_secs(30))
            // A former primary must not look like a healthy database without changes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            // Never `Prefer`: a server that says no would get the password in the clear.
            .ssl_mode(match self.settings.tls {
                Tls::Disable => SslMode::Disable,
                Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
            });
        Ok(config)
    }

    /// `SET`s rather than start-up options, since proxies refuse the latter.
    fn session(&self) -> String {
        let Database { synchronous_commit, statement_timeout, lock_timeout, .. } = self.settings;
        format!(
            "SET search_path = ''; SET default_transaction_isolation = 'read committed'; \
             SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
             SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
             SET plan_cache_mode = force_generic_plan; SET jit = off; \
             SET synchronous_commit = {}; SET statement_timeout = {}; SET lock_timeout = {}; \
             SET idle_in_transaction_session_timeout = '60s'",
            if synchronous_commit { "on" } else { "off" },
            statement_timeout.as_millis(),
            lock_timeout.as_millis(),
        )
    }

    /// `None` for plain text.
    fn tls(&self) -> Result<Option<MakeRustlsConnect>, ConnectError> {
        let chain_only = match self.settings.tls {
            Tls::Disable => return Ok(None),
            Tls::VerifyCa => true,
            Tls::VerifyFull => false,
        };
        let bad =
            |error: Box<dyn std::error::Error + Send + Sync>| ConnectError::Authorities(error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(self.roots()?);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(error.into()))?;
        let builder = if chain_only {
            let full = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| bad(error.into()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainOnly(full)))
        } else {
            builder.with_root_certificates(roots)
        };
        Ok(Some(MakeRustlsConnect::new(builder.with_no_client_auth())))
    }

    fn roots(&self) -> Result<RootCertStore, ConnectError> {
        let mut roots = RootCertStore::empty();
        match &self.settings.ca_file {
            Some(path) => {
                let bad = |error: rustls::pki_types::pem::Error| {
                    ConnectError::Authorities(Box::new(error))
                };
                for certificate in CertificateDer::pem_file_iter(path).map_err(bad)? {
                    roots
                        .add(certificate.map_err(bad)?)
                        .map_err(|error| ConnectError::Authorities(Box::new(error)))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        if roots.is_empty() {
            return Err(ConnectError::Authorities("no certificate authority was found".into()));
        }
        Ok(roots)
    }
}

/// Opens the pool's connections the way [`Connector::connect`] does.
struct PoolConnect(Connector);

impl deadpool_postgres::Connect for PoolConnect {
    fn connect(
        &self,
        _: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(async {
            let prepared = self.0.config().and_then(|config| Ok((config, self.0.tls()?)));
            let (config, tls) = prepared.map_err(|error| {
                tracing::error!(error = %error, "could not prepare a database connection");
                // The pool speaks only the client library's errors.
                Config::from_str("=").expect_err("a connection string has a key")
            })?;
            let (client, driver) = open(&config, tls).await?;
            client.batch_execute(&self.0.session()).await?;
            Ok((client, driver))
        })
    }
}

async fn open(
    config: &Config,
    tls: Option<MakeRustlsConnect>,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    Ok(match tls {
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            (client, drive(connection))
        }
        Some(tls) => {
            let (client, connection) = config.connect(tls).await?;
            (client, drive(connection))
        }
    })
}

/// Ends by itself when the client is dropped or the server goes; whoever holds the client sees
/// that as [`Code::Closed`].
fn drive<S>(connection: tokio_postgres::Connection<Socket, S>) -> JoinHandle<()>
where
    S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Redacted::of(&error), "a database connection ended");
        }
    })
}

/// `verify-ca`: the chain must end in an authority that we trust, whatever name it was issued for.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let full =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match full {
            // The verifier looks at the name last, so the chain has held.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
