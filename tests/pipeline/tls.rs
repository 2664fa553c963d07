//! A server must prove who it is before it gets a password.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::cluster::Cluster;
use crate::support::migration::Migration;
use crate::support::postgres::PASSWORD;
use crate::support::wait::seconds;
use crate::support::worker::Config;

#[test]
fn the_server_must_prove_who_it_is_and_nobody_else_gets_the_password() {
    // GIVEN a server with a certificate for `localhost`, that takes the worker's role by TLS alone
    let cluster = Cluster::start();
    let migration = Migration::on_own(&cluster.server, 1);
    let folder = migration.scratch.path("");
    let trusted = authority(&folder, "trusted");
    let other = authority(&folder, "other");
    certify(&folder, "localhost", &cluster);
    cluster.set("SET ssl = on");
    let role = &migration.database.role;
    admit(
        &cluster,
        &format!("hostssl all {role} all scram-sha-256\nhostnossl all {role} all reject\n"),
    );

    let config = |host: &str, tls: &str, authority: &Path| {
        let mut config = migration.config();
        config.url = config.url.replace("127.0.0.1", host);
        config.database = format!("tls = \"{tls}\"\nca_file = \"{}\"", authority.display());
        config
    };

    // THEN it is taken by its name, and by its authority alone where that is asked for
    config("localhost", "verify-full", &trusted).start().stop();
    config("127.0.0.1", "verify-ca", &trusted).start().stop();

    // AND refused under another name, from another authority, and in plain text
    refused(&config("127.0.0.1", "verify-full", &trusted), "certificate not valid for name");
    refused(&config("localhost", "verify-full", &other), "UnknownIssuer");
    refused(&config("localhost", "verify-ca", &other), "UnknownIssuer");
    cluster.set("SET ssl = off");
    refused(&config("localhost", "verify-full", &trusted), "server does not support TLS");
    refused(&config("localhost", "verify-ca", &trusted), "server does not support TLS");
}

#[test]
fn a_password_that_was_changed_is_read_again_when_a_connection_is_opened_again() {
    // GIVEN a worker that has its password from a file
    let cluster = Cluster::start();
    let mut migration = Migration::on_own(&cluster.server, 1);
    let role = migration.database.role.clone();
    admit(&cluster, &format!("host all {role} all scram-sha-256\n"));
    migration.users.load(50);
    migration.connect();
    let mut config = migration.config();
    let file = migration.scratch.path("url");
    std::fs::write(&file, &config.url).expect("the test's folder can be written");
    config.url_file = Some(file.clone());
    let worker = config.start();
    worker.until_caught_up(&migration.database);

    // WHEN it is changed, and all sessions end
    let url = config.url.replace(PASSWORD, "another-one");
    assert_ne!(url, config.url);
    std::fs::write(&file, url).expect("the test's folder can be written");
    let admin = cluster.session();
    admin.run(&format!("ALTER ROLE {role} PASSWORD 'another-one'"));
    admin.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    ));

    // THEN the worker comes back with the new one
    migration.users.sql.run("UPDATE users SET name = 'Zyxwv Later'");
    worker.until_caught_up(&migration.database);
    migration.users.assert_converged();
    assert!(!worker.log().contains("another-one"), "a password is in the log");
    worker.stop();
}

/// Puts a rule before all others of who may log in and how.
fn admit(cluster: &Cluster, rule: &str) {
    let access = cluster.dir().join("postgres/pg_hba.conf");
    let rules = std::fs::read_to_string(&access).expect("the server's rules can be read");
    std::fs::write(&access, rule.to_owned() + &rules).expect("the server's rules can be written");
    cluster.session().run("SELECT pg_reload_conf()");
}

#[track_caller]
fn refused(config: &Config, why: &str) {
    let mut worker = config.spawn();
    let status = worker.ended(seconds(20));
    let log = worker.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(why), "\"{why}\" is not in\n{log}");
}

/// Makes an authority; the path of its certificate.
fn authority(folder: &Path, name: &str) -> PathBuf {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ),
    );
    folder.join(format!("{name}.pem"))
}

/// Gives the cluster a key and a certificate of authority `trusted`.
fn certify(folder: &Path, host: &str, cluster: &Cluster) {
    openssl(
        folder,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={host} \
             -addext subjectAltName=DNS:{host} -keyout server.key -out server.csr"
        ),
    );
    openssl(
        folder,
        "x509 -req -in server.csr -CA trusted.pem -CAkey trusted.key -CAcreateserial -days 2 \
         -copy_extensions copy -out server.pem",
    );
    // The server wants its key to be its own and private.
    let owner = std::fs::metadata(cluster.dir().join("postgres")).expect("the cluster's folder");
    for (file, setting) in [("server.key", "ssl_key_file"), ("server.pem", "ssl_cert_file")] {
        let path = cluster.dir().join(file);
        std::fs::copy(folder.join(file), &path).expect("the cluster's folder can be written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("our file");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("the server's user");
        cluster.session().run(&format!("ALTER SYSTEM SET {setting} = '{}'", path.display()));
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("this test needs openssl: run loadtest/stack/stack install");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
