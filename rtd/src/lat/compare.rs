//! x
/// x
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {}
/// x
pub fn compare(_args: &CompareArgs) -> anyhow::Result<u8> {
    Ok(0)
}
