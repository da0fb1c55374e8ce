//! The codec of every service: prost's, which in addition looks through requests for extensions that this version would
//! overlook ([`crate::scan`]).

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::scan;

/// What the message of a refusal by this codec begins with; nothing else that ends a call before its service sees it does.
pub const REFUSAL_PREFIX: &str = "ringfence: ";

/// The codec of a method: `T` goes out, `U` comes in.
#[derive(Debug, Clone)]
pub struct ScanningCodec<T, U>(PhantomData<(T, U)>);

/// The half that reads.
#[derive(Debug, Clone, Default)]
pub struct ScanningDecoder<U>(ProstDecoder<U>);

impl<T, U> Default for ScanningCodec<T, U> {
    fn default() -> Self {
        ScanningCodec(PhantomData)
    }
}

impl<T, U> Codec for ScanningCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ScanningDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> ScanningDecoder<U> {
        ScanningDecoder(ProstDecoder::default())
    }
}

impl<U: Message + Default + 'static> Decoder for ScanningDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let Some(shape) = scan::shape_of::<U>() else { return self.0.decode(buffer) };
        // The memory is shared: with the message's fields, as without the look.
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        // What is no message at all is refused as by prost's own codec.
        let message = U::decode(bytes.clone()).map_err(|error| Status::internal(error.to_string()))?;
        scan::scan(&bytes, shape)
            .map_err(|error| Status::invalid_argument(format!("{REFUSAL_PREFIX}{error}")))?;
        Ok(Some(message))
    }
}
