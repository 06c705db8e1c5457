//! Where a content goes: into the database or into a bucket, each content once.

use tokio_util::sync::CancellationToken;

use super::{
    Keeper,
    bucket::{Bucket, NotPut},
    content::Opened,
    outcome::{Failed, Measured},
};
use crate::{
    domain::worker::{MediaMode, MediaPolicy},
    store::{MediaHash, MediaPlace, StoreError},
    worker::recorder::Stop,
};

impl Keeper {
    /// The rest of the policy is here at once, the bucket with a new pod, after the operator has checked it:
    /// until then what is meant for one place must not go into another.
    pub(super) fn waits_for_its_bucket(&self, policy: &MediaPolicy) -> bool {
        let place = self.parts.bucket.as_ref().map(Bucket::place);
        policy.mode == MediaMode::Content && policy.place.as_deref() != place
    }

    pub(super) async fn keep(
        &self,
        opened: Opened,
        cancel: &CancellationToken,
    ) -> Result<Result<Measured, Failed>, Stop> {
        let Opened { measured, bytes } = opened;
        let Measured { sha256, size } = measured;
        let _alone = self.storing.acquire().await.map_err(|error| Stop::Broken(error.to_string()))?;
        if self.parts.recorder.has_media(&sha256, cancel).await? {
            return Ok(Ok(measured));
        }
        let stored = match &self.parts.bucket {
            None => self.store(&sha256, size, MediaPlace::Database(&bytes), cancel).await?,
            Some(bucket) => {
                let put = cancel.run_until_cancelled(bucket.keep(&sha256, bytes)).await;
                match put.ok_or(Stop::Cancelled)? {
                    Ok(()) => self.store(&sha256, size, MediaPlace::Bucket(bucket.place()), cancel).await?,
                    Err(NotPut::This(why)) => Err(Failed::later(why)),
                    Err(NotPut::Any(why)) => Err(Failed::outage(why)),
                }
            }
        };
        Ok(stored.map(|()| measured))
    }

    async fn store(
        &self,
        sha256: &MediaHash,
        size: u64,
        place: MediaPlace<'_>,
        cancel: &CancellationToken,
    ) -> Result<Result<(), Failed>, Stop> {
        let recorder = &self.parts.recorder;
        let Err(error) = recorder.keep_media(sha256, size, place).await? else { return Ok(Ok(())) };
        // A database that is away altogether is waited for here. If only the answer was lost, the content is there.
        if recorder.has_media(sha256, cancel).await? {
            return Ok(Ok(()));
        }
        Ok(Err(match error {
            StoreError::Full(_) | StoreError::Login(_) => Failed::outage(error.to_string()),
            _ => Failed::later("the database does not take it"),
        }))
    }
}
