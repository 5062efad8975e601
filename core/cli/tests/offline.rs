//! What the program prints where no database is needed, held by the files in `cmd`.

#[test]
fn commands_without_a_database_print_what_is_written_down() {
    trycmd::TestCases::new()
        .env("DATABASE_URL", "")
        .env("TASKER_DATABASE_URL", "")
        .env("TASKER_SCHEMA", "")
        .env("COLUMNS", "100")
        .case("tests/cmd/*.trycmd");
}
