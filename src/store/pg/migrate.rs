//! Brings a schema, its partitions and its roles up to date, as the owner of the database.
//! Idempotent, and safe to run twice at the same time.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, Executor as _, PgConnection, SqlSafeStr as _,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    Endpoint, Role, SchemaName,
    continuity::inconsistent,
    map, pooling, role_name,
    scram::{hmac_sha256, verifier},
};
use crate::store::StoreError;

/// Version, name and SQL of a migration.
pub(super) type Source = (i64, &'static str, &'static str);

/// Every migration, oldest first. An applied one is never edited.
const MIGRATIONS: [Source; 6] = [
    (1, "trail", include_str!("../../../migrations/0001_trail.sql")),
    (2, "inbox", include_str!("../../../migrations/0002_inbox.sql")),
    (3, "snapshot", include_str!("../../../migrations/0003_snapshot.sql")),
    (4, "media", include_str!("../../../migrations/0004_media.sql")),
    (5, "room", include_str!("../../../migrations/0005_room.sql")),
    (6, "room_rests_as", include_str!("../../../migrations/0006_room_rests_as.sql")),
];

/// The schema version that this program needs and makes.
pub const VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Where a role comes from.
#[derive(Debug, Clone)]
pub enum RoleSource {
    /// Made here, with the name of [`role_name`] and this password.
    Generated(SecretString),
    /// Made by somebody else under this name; gets its rights only.
    Given(String),
}

/// The three roles of a trail.
#[derive(Debug, Clone)]
pub struct RoleSources {
    /// See [`Role::Writer`].
    pub writer: RoleSource,
    /// See [`Role::Reader`].
    pub reader: RoleSource,
    /// See [`Role::Inbox`].
    pub inbox: RoleSource,
}

impl RoleSources {
    fn get(&self, role: Role) -> &RoleSource {
        match role {
            Role::Writer => &self.writer,
            Role::Reader => &self.reader,
            Role::Inbox => &self.inbox,
        }
    }

    /// The name of a role.
    pub fn name(&self, owner: &Endpoint, role: Role) -> String {
        match self.get(role) {
            RoleSource::Generated(_) => role_name(owner.schema(), owner.dbname(), role),
            RoleSource::Given(name) => name.clone(),
        }
    }
}

/// What a run found and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Version before; `None` where there was no schema.
    pub from: Option<i64>,
    /// Version now.
    pub to: i64,
}

/// Migrates. Changes nothing if it fails with [`StoreError::SchemaTooNew`],
/// [`StoreError::TransactionPooling`] or [`StoreError::MayNotCreateRoles`].
pub async fn migrate(owner: &Endpoint, roles: &RoleSources) -> Result<Migrated, StoreError> {
    pooling::refuse(owner).await?;
    let mut connection = owner.connect().await?;
    let outcome = run(&mut connection, owner, roles).await;
    // Closing the session gives its lock back, too.
    let _closed = connection.close().await;
    outcome
}

/// Keeps other migrators of the schema out until the session ends. A migration may take as long as it takes; waiting for
/// another migrator may not.
pub(super) async fn lock(
    connection: &mut PgConnection,
    what: &str,
    schema: &SchemaName,
) -> Result<(), StoreError> {
    sqlx::query(
        "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '300s', false),
                set_config('ems_bots.schema', $1, false)",
    )
    .bind(schema.as_str())
    .execute(&mut *connection)
    .await
    .map_err(map)?;
    sqlx::query("SELECT pg_advisory_lock(hashtextextended('ems-bots/' || $1 || '/' || $2, 0))")
        .bind(what)
        .bind(schema.as_str())
        .execute(connection)
        .await
        .map(drop)
        .map_err(map)
}

/// Makes the schema of [`lock`] if there is none, and applies what is missing in it.
pub(super) async fn apply(connection: &mut PgConnection, migrations: &[Source]) -> Result<(), StoreError> {
    // CREATE SCHEMA IF NOT EXISTS would ask for the right to create even where the schema is there.
    connection
        .execute(
            "DO $$ BEGIN
                 IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = current_setting('ems_bots.schema')) THEN
                     EXECUTE format('CREATE SCHEMA %I', current_setting('ems_bots.schema'));
                 END IF;
             END $$",
        )
        .await
        .map_err(map)?;
    migrator(migrations).run_direct(None, connection, false).await.map_err(migration_error)
}

async fn run(
    connection: &mut PgConnection,
    owner: &Endpoint,
    roles: &RoleSources,
) -> Result<Migrated, StoreError> {
    lock(connection, "migrate", owner.schema()).await?;
    let from = version(connection).await?;
    if let Some(found) = from.filter(|found| *found > VERSION) {
        return Err(StoreError::SchemaTooNew { found, known: VERSION });
    }
    ensure_roles(connection, owner, roles).await?;
    apply(connection, &MIGRATIONS).await?;
    sqlx::query("SELECT grant_rights($1, $2, $3)")
        .bind(roles.name(owner, Role::Writer))
        .bind(roles.name(owner, Role::Reader))
        .bind(roles.name(owner, Role::Inbox))
        .execute(&mut *connection)
        .await
        .map_err(map)?;
    connection
        .execute(
            "SELECT ensure_partitions(array_agg(category::smallint),
                                      array_agg((now() + ahead * interval '1 month')::date))
             FROM generate_series(1, 5) AS category, generate_series(0, 2) AS ahead",
        )
        .await
        .map_err(map)?;
    Ok(Migrated { from, to: VERSION })
}

fn migrator(migrations: &[Source]) -> Migrator {
    let migrations = migrations.iter().map(|(version, name, sql)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // The driver would lock the whole database; two bots may well migrate in one at the same time.
    migrator.set_locking(false);
    migrator
}

fn migration_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => map(error),
        MigrateError::VersionMissing(found) => StoreError::SchemaTooNew { found, known: VERSION },
        other => inconsistent("_sqlx_migrations", other.to_string()),
    }
}

/// The version of the schema in the search path, if there is one.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(map)?;
    if !exists {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
        .map_err(map)
}

/// Fails unless the schema has exactly the version that this program was written for.
pub(super) async fn require_current(connection: &mut PgConnection) -> Result<(), StoreError> {
    match version(connection).await? {
        Some(found) if found == VERSION => Ok(()),
        Some(found) if found > VERSION => Err(StoreError::SchemaTooNew { found, known: VERSION }),
        found => Err(StoreError::SchemaTooOld { found, needed: VERSION }),
    }
}

/// Makes the generated roles that are missing and sets the passwords of all of them.
async fn ensure_roles(
    connection: &mut PgConnection,
    owner: &Endpoint,
    roles: &RoleSources,
) -> Result<(), StoreError> {
    let generated: Vec<(String, &SecretString)> = Role::ALL
        .into_iter()
        .filter_map(|role| match roles.get(role) {
            RoleSource::Generated(password) => Some((roles.name(owner, role), password)),
            RoleSource::Given(_) => None,
        })
        .collect();
    let names: Vec<&str> = generated.iter().map(|(name, _)| name.as_str()).collect();
    let existing: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)")
            .bind(&names)
            .fetch_all(&mut *connection)
            .await
            .map_err(map)?;
    let may_create: bool =
        sqlx::query_scalar("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&mut *connection)
            .await
            .map_err(map)?;
    if !may_create {
        let missing: Vec<&str> =
            names.into_iter().filter(|name| !existing.iter().any(|role| role == name)).collect();
        return if missing.is_empty() { Ok(()) } else { Err(may_not_create(&missing)) };
    }
    for (name, password) in &generated {
        ensure_role(connection, name, password).await?;
    }
    Ok(())
}

/// The names consist of a checked schema name, digits and letters, so they need no escaping.
fn may_not_create(missing: &[&str]) -> StoreError {
    let statements: Vec<String> =
        missing.iter().map(|name| format!("CREATE ROLE \"{name}\" LOGIN;")).collect();
    let sql = format!(
        "{} -- then give each role its password from the Secret of the database roles (psql: \\password)",
        statements.join(" ")
    );
    StoreError::MayNotCreateRoles { sql }
}

async fn ensure_role(
    connection: &mut PgConnection,
    name: &str,
    password: &SecretString,
) -> Result<(), StoreError> {
    let password = password.expose_secret();
    if password.is_empty() || !password.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(inconsistent("pg_roles", format!("password of role {name} is not printable ASCII")));
    }
    // The salt follows from role and password: running again changes nothing that a pooler has kept.
    let mut salt = [0; 16];
    salt.copy_from_slice(&hmac_sha256(password.as_bytes(), name.as_bytes())[..16]);
    sqlx::query("SELECT set_config('ems_bots.role', $1, false), set_config('ems_bots.verifier', $2, false)")
        .bind(name)
        .bind(verifier(password, salt))
        .execute(&mut *connection)
        .await
        .map_err(map)?;
    let done = connection
        .execute(
            "DO $$ DECLARE name text := current_setting('ems_bots.role'); BEGIN
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                     EXECUTE format('CREATE ROLE %I LOGIN', name);
                 END IF;
                 BEGIN
                     EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', name, current_setting('ems_bots.verifier'));
                 EXCEPTION WHEN insufficient_privilege THEN
                     -- An administrator made it and looks after its password.
                     RAISE WARNING 'password of role % left as it is', name;
                 END;
             END $$",
        )
        .await;
    sqlx::query("SELECT set_config('ems_bots.verifier', '', false)")
        .execute(connection)
        .await
        .map_err(map)?;
    done.map(|_| ()).map_err(map)
}
